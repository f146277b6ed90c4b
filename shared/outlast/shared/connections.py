"""The one door to Postgres: every connection of ours is made here.

The address is an async callable, asked anew for each connection, so that rotating credentials fit in. Every connection
is autocommit, named, kept alive, and ends what holds a lock too long: a process that is stopped within a transaction
must not stop a takeover. A server that is away, or falls silent, is waited for; nobody is held by it.
"""

from __future__ import annotations

import asyncio
import math
import os
import random
import socket
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from typing import Any, Self, TypeVar

import psycopg
from psycopg.abc import PQGen
from psycopg.conninfo import conninfo_to_dict
from psycopg.pq import TransactionStatus
from psycopg.rows import TupleRow
from psycopg_pool import AsyncConnectionPool, PoolClosed, PoolTimeout

from .domain.errors import Unavailable
from .driver_errors import NOT_PREPARED, READ_ONLY, translated

T = TypeVar("T")
ConnInfo = Callable[[], Awaitable[str]]

_SESSION: dict[str, str] = {
    "idle_in_transaction_session_timeout": "2s",
    "statement_timeout": "4s",
    "lock_timeout": "2s",
}
# A plan cached while a table was small scans it for ever; these leave the planner the index only.
PINNED_PLAN: dict[str, str] = {"enable_seqscan": "off", "enable_bitmapscan": "off", "enable_sort": "off"}
_SOCKET: dict[str, Any] = {
    "connect_timeout": 5,
    "keepalives_idle": 5,
    "keepalives_interval": 2,
    "keepalives_count": 3,
    "tcp_user_timeout": 4000,
}
_ANSWER_SECONDS = 6.0  # longer than a statement may take: what has not answered then never will
_RECONNECT_SECONDS = 0.5  # between two tries while somebody waits for a connection
_CLOSE_SECONDS = 1.0
_POOL_WAITS = {
    "pool_waits": "requests_queued",
    "pool_wait_ms": "requests_wait_ms",
    "pool_errors": "requests_errors",
}
CONNECTION_LIFE_SECONDS = 50 * 60  # less than the life of a rotating credential and of a managed database's connections


def fixed(url: str) -> ConnInfo:
    """An address that never changes."""

    async def conninfo() -> str:
        return url

    return conninfo


def place(url: str) -> str | None:
    """Where a database is, without user and password; None for what is not clearly an address."""
    try:
        given = conninfo_to_dict(url)
    except psycopg.Error:
        return None
    shown = [str(given.get(name) or default) for name, default in (("host", "localhost"), ("port", ""), ("dbname", ""))]
    if any("@" in part for part in shown):  # a password that holds / or : ends the host early
        return None
    host, port, name = shown
    return host + (f":{port}" if port else "") + (f"/{name}" if name else "")


class Connection(psycopg.AsyncConnection[TupleRow]):
    """One that a server which has fallen silent cannot hold: neither who waits for an answer nor who gives up."""

    answer_seconds: float | None = _ANSWER_SECONDS
    """How long one answer is waited for. A piece of work may raise it for itself, with its statement_timeout."""
    made_at = 0.0

    @classmethod
    async def connect(  # pyright: ignore[reportIncompatibleMethodOverride] — we give no other options
        cls, conninfo: str, *, on_failure: Callable[[psycopg.Error], None] = lambda _: None, **options: Any
    ) -> Self:
        try:
            connection = await super().connect(conninfo, **options)
        except psycopg.ProgrammingError:  # it quotes the address, and the password with it
            raise psycopg.OperationalError("its address (DATABASE_URL) is not one that libpq understands") from None
        except psycopg.Error as error:
            on_failure(error)
            raise
        connection.made_at = asyncio.get_running_loop().time()
        return connection

    async def wait(self, gen: PQGen[T], interval: float = 0.1, timeout: float | None = None) -> T:
        if timeout is not None:
            return await super().wait(gen, interval, timeout)
        try:
            return await super().wait(gen, interval, self.answer_seconds)
        except psycopg.OperationalError as error:
            if error.sqlstate is not None or self.pgconn.transaction_status != TransactionStatus.ACTIVE:
                raise
            self.pgconn.finish()  # the answer may come yet, when nobody expects it
            raise psycopg.OperationalError(f"no answer within {self.answer_seconds:g} s") from None

    async def cancel_safe(self, *, timeout: float = 30.0) -> None:
        """Break the connection off. To have the server cancel takes another connection, and 10 s if it is silent."""
        with suppress(OSError), socket.socket(fileno=os.dup(self.pgconn.socket)) as end:
            end.shutdown(socket.SHUT_RDWR)


class Database:
    """Connections to one Postgres schema: a pool for short work, and dedicated ones."""

    def __init__(self, conninfo: ConnInfo, *, schema: str, application: str, pin_plan: bool = False) -> None:
        self.schema = schema
        self._conninfo = conninfo
        self._application = application
        self._session = {**_SESSION, **(PINNED_PLAN if pin_plan else {})}
        self._options: dict[str, Any] = {"autocommit": True, "application_name": application, **_SOCKET}
        self._pool: AsyncConnectionPool[Connection] | None = None
        self._purged_at = -math.inf
        self._failure: psycopg.Error | None = None
        """Why the pool could not connect, last time; None when it could."""

    @asynccontextmanager
    async def pooled(self, *, max_connections: int) -> AsyncGenerator[Database]:
        """This database with its pool open. Does not wait for the server: work does, and says so when it is away."""
        pool = AsyncConnectionPool(
            self._conninfo,
            connection_class=Connection,
            min_size=1,
            max_size=max_connections,
            max_lifetime=CONNECTION_LIFE_SECONDS,
            kwargs={**self._options, "on_failure": self._note_failure},
            configure=self._configure,
            open=False,
            timeout=4.0,
            # The pool would try at longer and longer intervals: a database that is back after 30 s would be found late.
            reconnect_timeout=_RECONNECT_SECONDS,
            reconnect_failed=_try_again,
            name=self._application,
        )
        await pool.open()
        self._pool = pool
        try:
            yield self
        finally:
            self._pool = None
            await pool.close(timeout=_CLOSE_SECONDS)

    async def run(self, work: Callable[[Connection], Awaitable[T]], *, patience_seconds: float = 5.0) -> T:
        """Do idempotent work on a pooled connection, again while the database cannot do it, until patience ends.

        Raises Unavailable then, SchemaMismatch when our tables are not there, and LeaseLost when it was fenced off.
        """
        loop = asyncio.get_running_loop()
        deadline = loop.time() + patience_seconds
        for attempt in range(1_000_000):
            try:
                return await self._run_once(work)
            except PoolClosed as error:
                raise Unavailable from error
            except psycopg.Error as error:
                ours = translated(self._failure if isinstance(error, PoolTimeout) and self._failure else error)
                pause = min(0.02 * 2**attempt, 0.5) * random.uniform(0.5, 1.0)
                if not isinstance(ours, Unavailable) or loop.time() + pause > deadline:
                    raise ours from error
                await asyncio.sleep(pause)
        raise AssertionError("unreachable")

    async def _run_once(self, work: Callable[[Connection], Awaitable[T]]) -> T:
        assert self._pool is not None, "used outside pooled()"
        async with self._pool.connection() as connection:
            connection.answer_seconds = _ANSWER_SECONDS
            try:
                return await work(connection)
            except psycopg.Error as error:
                await self.suspect(connection, error)
                raise

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

    async def connect(self, **session: str) -> Connection:
        """A connection of the caller's own, who closes it. ``session`` overrides settings of it. Raises Unavailable."""
        try:
            connection = await Connection.connect(await self._conninfo(), **self._options)
        except psycopg.Error as error:
            raise translated(error) from error
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

    def _note_failure(self, error: psycopg.Error) -> None:
        self._failure = error

    async def _configure(self, connection: Connection, **session: str) -> None:
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
        if self._connection is not None and self._database.suspects(self._connection):
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


async def _try_again(pool: AsyncConnectionPool[Connection]) -> None:
    """The pool has given a connection up; it makes another one only when it is asked, and they have asked already."""
    if pool.get_stats().get("requests_waiting"):
        await pool.check()
