"""The one door to Postgres: every connection of ours is made here.

The address is an async callable, asked anew for each connection, so that rotating credentials fit in. Every connection
is autocommit, named, kept alive, and ends what holds a lock too long: a process that is stopped within a transaction
must not stop a takeover. Errors of the driver become ours here, once.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import psycopg
import structlog
from psycopg.rows import TupleRow
from psycopg_pool import AsyncConnectionPool, PoolClosed, PoolTimeout

from .domain.errors import LeaseLost, SchemaMismatch, Unavailable

log = structlog.get_logger()

T = TypeVar("T")
Connection = psycopg.AsyncConnection[TupleRow]
ConnInfo = Callable[[], Awaitable[str]]

# What retrying may mend: a lost connection, a restart, a deadlock, a timeout.
TRANSIENT: tuple[type[Exception], ...] = (
    psycopg.OperationalError,
    psycopg.InterfaceError,
    PoolTimeout,
    PoolClosed,
)
_LEASE_LOST = "OL001"  # raised by the function fence() of our schema
_SCHEMA_ERRORS = (
    psycopg.errors.UndefinedTable,
    psycopg.errors.UndefinedColumn,
    psycopg.errors.InvalidSchemaName,
)

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
CONNECTION_LIFE_SECONDS = 50 * 60  # less than the life of a rotating credential and of a managed database's connections


def fixed(url: str) -> ConnInfo:
    """An address that never changes."""

    async def conninfo() -> str:
        return url

    return conninfo


class Database:
    """Connections to one Postgres schema: a pool for short work, and dedicated ones."""

    def __init__(self, conninfo: ConnInfo, *, schema: str, application: str, pin_plan: bool = False) -> None:
        self.schema = schema
        self._conninfo = conninfo
        self._application = application
        self._session = {**_SESSION, **(PINNED_PLAN if pin_plan else {})}
        self._pool: AsyncConnectionPool[Connection] | None = None

    @asynccontextmanager
    async def pooled(self, *, max_connections: int) -> AsyncGenerator[Database]:
        """This database with its pool open. Does not wait for the server: work does, and says so when it is away."""
        pool: AsyncConnectionPool[Connection] = AsyncConnectionPool(
            self._conninfo,
            min_size=1,
            max_size=max_connections,
            max_lifetime=CONNECTION_LIFE_SECONDS,
            kwargs={"autocommit": True, "application_name": self._application, **_SOCKET},
            configure=self._configure,
            open=False,
            timeout=4.0,
            reconnect_timeout=10.0,
            name=self._application,
        )
        async with pool:
            self._pool = pool
            try:
                yield self
            finally:
                self._pool = None

    async def run(self, work: Callable[[Connection], Awaitable[T]], *, patience_seconds: float = 5.0) -> T:
        """Do idempotent work on a pooled connection, again if the connection dies, until patience ends.

        Raises Unavailable then, SchemaMismatch when our tables are not there, and LeaseLost when it was fenced off.
        """
        assert self._pool is not None, "used outside pooled()"
        loop = asyncio.get_running_loop()
        deadline = loop.time() + patience_seconds
        for attempt in range(1_000_000):
            try:
                async with self._pool.connection() as connection:
                    return await work(connection)
            except _SCHEMA_ERRORS as error:
                raise _mismatch(error) from error
            except TRANSIENT as error:
                pause = min(0.02 * 2**attempt, 0.5) * random.uniform(0.5, 1.0)
                if loop.time() + pause > deadline:
                    raise Unavailable from error
                await asyncio.sleep(pause)
            except psycopg.Error as error:
                if error.sqlstate == _LEASE_LOST:
                    raise LeaseLost from None
                raise
        raise AssertionError("unreachable")

    async def connect(self, **session: str) -> Connection:
        """A connection of the caller's own, who closes it. ``session`` overrides settings of it. Raises Unavailable."""
        try:
            connection = await psycopg.AsyncConnection.connect(
                await self._conninfo(), autocommit=True, application_name=self._application, **_SOCKET
            )
        except TRANSIENT as error:
            raise Unavailable(_why_not_connected(error)) from error
        try:
            await self._configure(connection, **session)
        except TRANSIENT as error:
            await connection.close()
            raise Unavailable(_why_not_connected(error)) from error
        except BaseException:  # cancelled, most of all
            await connection.close()
            raise
        return connection

    def pool_stats(self) -> dict[str, int]:
        """psycopg_pool's numbers: what is open and free, and how often and how long work has waited for it."""
        return self._pool.get_stats() if self._pool is not None else {}

    def dedicated(self, **session: str) -> Dedicated:
        """A connection for one task. ``session`` overrides settings of it."""
        return Dedicated(self, session)

    async def _configure(self, connection: Connection, **session: str) -> None:
        values = {**self._session, **session}
        await connection.execute(
            "SELECT set_config('search_path', quote_ident(%s) || ', public', false), "
            "set_config(name, value, false) FROM unnest(%s::text[], %s::text[]) AS s(name, value)",
            (self.schema, list(values), list(values.values())),
        )


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
        if self._connection is None or self._connection.closed:
            self._connection = await self._database.connect(**self._session)
        try:
            return await work(self._connection)
        except _SCHEMA_ERRORS as error:
            raise _mismatch(error) from error
        except TRANSIENT as error:
            await self.close()
            raise Unavailable from error
        except BaseException:  # in the middle of something: what state it is in is not worth finding out
            await self.close()
            raise

    async def close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.close()


def _mismatch(error: Exception) -> SchemaMismatch:
    return SchemaMismatch(f"{str(error).splitlines()[0]}: run `outlast migrate`")


def _why_not_connected(error: Exception) -> str:
    """The server's reason without the address, which may hold a password."""
    lines = [line for line in str(error).splitlines() if line.strip()]
    reason = lines[0].rpartition(": ")[2].strip() if lines else type(error).__name__
    return f"The database cannot be reached: {reason}"
