"""Connections to one Postgres schema: a pool of them, and dedicated ones."""

from __future__ import annotations

import asyncio
import math
import random
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import psycopg
from psycopg_pool import AsyncConnectionPool, PoolClosed, PoolTimeout

from outlast.shared.domain.errors import Busy, OutlastError, Stopping, Unavailable, Unfit
from outlast.shared.driver_errors import NOT_PREPARED, READ_ONLY, translated
from outlast.shared.lakebase import Lakebase, lakebase_of
from outlast.shared.settings import Settings

from .address import ConnInfo, checked, fixed, minted
from .connection import ANSWER_SECONDS, SOCKET, Connection
from .pool_faults import heeding_cancels, try_again
from .second_loop import SecondLoop
from .session import PINNED_PLAN, SESSION
from .versions import check_version

T = TypeVar("T")

_RECONNECT_SECONDS = 0.5  # between two tries while somebody waits for a connection
_CLOSE_SECONDS = 1.0
_POOL_SECONDS = 4.0  # that work waits for a connection
_POOL_WAITS = {
    "pool_waits": "requests_queued",
    "pool_wait_ms": "requests_wait_ms",
    "pool_errors": "requests_errors",
}
_LIFE_SECONDS = 3000.0
_NONE_FREE = "No connection to the database became free in time."


class Database:
    """Connections to one Postgres schema: a pool for short work, and dedicated ones."""

    def __init__(
        self,
        conninfo: ConnInfo,
        *,
        schema: str,
        application: str,
        pin_plan: bool = False,
        life_seconds: float = _LIFE_SECONDS,
        lakebase: Lakebase | None = None,
        when_busy: Callable[[int], None] | None = None,
    ) -> None:
        """``when_busy`` is told how many connections there are, when work has found none free; the work waits on.

        Without it the work fails when its patience ends.
        """
        self.schema = schema
        self.lakebase = lakebase
        self.life_seconds = life_seconds
        """How old a connection gets before another one takes its place."""
        self._conninfo = conninfo
        self._application = application
        self._session = {**SESSION, **(PINNED_PLAN if pin_plan else {})}
        self._options: dict[str, Any] = {"autocommit": True, "application_name": application, **SOCKET}
        self._pool: AsyncConnectionPool[Connection] | None = None
        self._purged_at = -math.inf
        self._when_busy = when_busy
        self._in_use = 0
        self._failure: Exception | None = None
        """Why the pool could not connect, last time; None when it could."""
        self.second_loop = SecondLoop(
            lambda: Database(
                conninfo,
                schema=schema,
                application=application,
                pin_plan=pin_plan,
                life_seconds=life_seconds,
                lakebase=lakebase,
                when_busy=when_busy,
            )
        )
        """For code that waits for this database and keeps the loop from turning meanwhile."""

    @classmethod
    def of(
        cls,
        settings: Settings,
        *,
        application: str,
        pin_plan: bool = False,
        when_busy: Callable[[int], None] | None = None,
    ) -> Database:
        """The database that the settings name: DATABASE_URL, else a Lakebase. Raises SettingsError."""
        lakebase = lakebase_of(settings)
        return cls(
            fixed(checked(settings.required_database_url())) if lakebase is None else minted(lakebase),
            schema=settings.db_schema,
            application=application,
            pin_plan=pin_plan,
            life_seconds=settings.connection_life_seconds,
            lakebase=lakebase,
            when_busy=when_busy,
        )

    @asynccontextmanager
    async def pooled(self, *, max_connections: int) -> AsyncGenerator[Database]:
        """This database with its pool open. Does not wait for the server: work does, and says so when it is away."""
        pool = AsyncConnectionPool(
            self._address,
            connection_class=Connection,
            min_size=1,
            max_size=max_connections,
            max_lifetime=self.life_seconds,
            kwargs={**self._options, "on_failure": self._note_failure},
            configure=self._configure,
            open=False,
            timeout=_POOL_SECONDS,
            # The pool would try at longer and longer intervals: a database that is back after 30 s would be found late.
            reconnect_timeout=_RECONNECT_SECONDS,
            reconnect_failed=try_again,
            name=self._application,
        )
        await pool.open()
        self._pool = pool
        try:
            yield self
        finally:
            self._pool = None
            await self.second_loop.close()
            await pool.close(timeout=_CLOSE_SECONDS)

    async def run(self, work: Callable[[Connection], Awaitable[T]], *, patience_seconds: float = 5.0) -> T:
        """Do idempotent work on a pooled connection, again while the database cannot do it, until patience ends.

        Raises Unavailable then, SchemaMismatch when our tables are not there, and LeaseLost when it was fenced off.
        """
        loop = asyncio.get_running_loop()
        deadline = loop.time() + patience_seconds
        for attempt in range(1_000_000):
            try:
                with heeding_cancels():
                    return await self._run_once(work)
            except PoolClosed as error:
                raise Stopping from error
            except psycopg.Error as error:
                ours = self._why(error)
                if isinstance(ours, Busy) and self._when_busy is not None and self._pool is not None:
                    self._when_busy(self._pool.max_size)
                    continue
                pause = min(0.02 * 2**attempt, 0.5) * random.uniform(0.5, 1.0)
                if not isinstance(ours, Unavailable) or loop.time() + pause > deadline:
                    raise ours.with_traceback(None) from error  # it may have been raised to others before
                await asyncio.sleep(pause)
        raise AssertionError("unreachable")

    async def _run_once(self, work: Callable[[Connection], Awaitable[T]]) -> T:
        assert self._pool is not None, "used outside pooled()"
        async with self._pool.connection() as connection:
            connection.answer_seconds = ANSWER_SECONDS
            self._in_use += 1
            try:
                return await work(connection)
            except psycopg.Error as error:
                await self.suspect(connection, error)
                raise
            finally:
                self._in_use -= 1

    async def suspect(self, connection: Connection, error: psycopg.Error) -> None:
        """When one connection is lost, or turns out to be to a standby, those of its age most likely are too.

        Each would cost somebody his patience: they are replaced at once.
        """
        if error.sqlstate == NOT_PREPARED:  # by this connection; the others know what they have prepared
            await connection.close()
            return
        if error.sqlstate == READ_ONLY:
            await connection.close()
        if connection.closed and not self.suspects(connection):
            self._purged_at = asyncio.get_running_loop().time()
            if self._pool is not None:
                await self._pool.drain()

    def suspects(self, connection: Connection) -> bool:
        """Whether one of its age has been lost."""
        return connection.made_at <= self._purged_at

    def has_aged(self, connection: Connection) -> bool:
        """Whether it is time for another one."""
        return asyncio.get_running_loop().time() - connection.made_at > self.life_seconds

    async def connect(self, **session: str) -> Connection:
        """A connection of the caller's own, which the caller closes. ``session`` overrides settings of it.

        Raises Unavailable, and Unfit when the server is too old.
        """
        try:
            connection = await Connection.connect(await self._address(), **self._options)
        except psycopg.Error as error:
            raise self._explained(error) from error
        try:
            await self._configure(connection, **session)
        except psycopg.Error as error:
            await connection.close()
            raise translated(error) from error
        except BaseException:  # cancelled, most of all
            await connection.close()
            raise
        if "statement_timeout" in session:
            connection.answer_seconds = None
        return connection

    def pool_stats(self) -> dict[str, int]:
        """psycopg_pool's numbers: what is open and free, and how often and how long work has waited for it."""
        return self._pool.get_stats() if self._pool is not None else {}

    def take_pool_waits(self) -> dict[str, int]:
        """How often and how long work has waited for a connection since this was last asked, as a worker counts it."""
        stats = self._pool.pop_stats() if self._pool is not None else {}
        return {ours: stats.get(theirs, 0) for ours, theirs in _POOL_WAITS.items()}

    def dedicated(self, **session: str) -> Dedicated:
        """A connection for one task. ``session`` overrides settings of it."""
        return Dedicated(self, session)

    async def _address(self) -> str:
        try:
            return await self._conninfo()
        except OutlastError as error:
            self._failure = error
            raise

    def _note_failure(self, error: psycopg.Error) -> None:
        self._failure = self._explained(error)

    def _why(self, error: psycopg.Error) -> Exception:
        if isinstance(error, PoolTimeout):  # the others have them all, or none could be made
            if self._pool is not None and self._in_use and (self._in_use >= self._pool.max_size or not self._failure):
                return Busy(f"All {self._pool.max_size} connections of this process to the database are busy.")
            return self._failure or Unavailable(_NONE_FREE, reason=str(error))
        return translated(error)

    def _explained(self, error: psycopg.Error) -> Exception:
        """Why a connection could not be made."""
        refused = self.lakebase.refused(str(error)) if self.lakebase is not None else None
        return refused or translated(error)

    async def _configure(self, connection: Connection, **session: str) -> None:
        try:
            check_version(connection.info.server_version)
        except Unfit as error:
            self._failure = error
            await connection.close()
            raise
        values = {**self._session, **session}
        await connection.execute(
            "SELECT set_config('search_path', quote_ident(%s) || ', public', false), "
            "set_config(name, value, false) FROM unnest(%s::text[], %s::text[]) AS s(name, value)",
            (self.schema, list(values), list(values.values())),
        )
        self._failure = None


class Dedicated:
    """One connection kept for one task, made again after it broke. Not for two tasks at once."""

    def __init__(self, database: Database, session: Mapping[str, str]) -> None:
        self._database = database
        self._session = session
        self._connection: Connection | None = None

    async def run(self, work: Callable[[Connection], Awaitable[T]]) -> T:
        """Do the work once. Raises Unavailable when the connection fails: whether it was done is then unknown.

        Raises SchemaMismatch when our tables are not there.
        """
        if self._connection is not None and (
            self._database.suspects(self._connection) or self._database.has_aged(self._connection)
        ):
            await self.close()
        if self._connection is None or self._connection.closed:
            self._connection = await self._database.connect(**self._session)
        try:
            return await work(self._connection)
        except psycopg.Error as error:
            await self._database.suspect(self._connection, error)
            await self.close()
            raise translated(error) from error
        except BaseException:  # in the middle of something: what state it is in is not worth finding out
            await self.close()
            raise

    async def close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.close()
