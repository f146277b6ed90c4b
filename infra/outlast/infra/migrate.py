"""Migrations: numbered plain SQL files, each applied once, in order.

Runners exclude each other by a session lock that dies with its connection, so a killed one blocks nobody. A file is one
transaction with its record; a file that begins with ``-- outlast: no transaction`` is one repeatable statement.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from importlib.resources import files
from importlib.resources.abc import Traversable

from psycopg.sql import SQL, Identifier

from outlast.shared.connections import Connection, Database
from outlast.shared.domain.errors import SchemaMismatch, Unavailable

NO_TRANSACTION = "-- outlast: no transaction"
_LOCK_POLL_SECONDS = 0.2


@dataclass(frozen=True, slots=True)
class Migration:
    version: int
    name: str
    text: str

    @property
    def checksum(self) -> str:
        return hashlib.sha256(self.text.encode()).hexdigest()

    @property
    def transactional(self) -> bool:
        return not self.text.startswith(NO_TRANSACTION)


def shipped() -> list[Migration]:
    """The migrations of this release, in order."""
    return read(files("outlast.infra").joinpath("migrations"))


def read(folder: Traversable) -> list[Migration]:
    found = sorted((file for file in folder.iterdir() if file.name.endswith(".sql")), key=lambda file: file.name)
    return [Migration(int(file.name[:4]), file.name, file.read_text("utf-8")) for file in found]


async def migrate(database: Database, migrations: list[Migration], *, wait_seconds: float = 60) -> list[Migration]:
    """Apply what is missing and return it.

    Raises SchemaMismatch when an applied file has changed or the database knows more than this release, and Unavailable
    when another runner holds the lock for longer than ``wait_seconds``.
    """
    async with sole_runner(database, wait_seconds) as connection:
        if not await _keeps_records(connection, database.schema):
            await connection.execute(SQL("CREATE SCHEMA IF NOT EXISTS {}").format(Identifier(database.schema)))
            await connection.execute(
                "CREATE TABLE schema_migrations (version integer PRIMARY KEY, name text NOT NULL, "
                "checksum text NOT NULL, applied_at timestamptz NOT NULL DEFAULT now())"
            )
        missing = await _missing(connection, migrations)
        for migration in missing:
            await _apply(connection, migration)
    return missing


async def _keeps_records(connection: Connection, schema: str) -> bool:
    """Whether it was migrated before. A role that may only use the schema can then see that nothing is to be done."""
    cursor = await connection.execute("SELECT to_regclass(format('%%I.schema_migrations', %s::text))", [schema])
    row = await cursor.fetchone()
    return row is not None and row[0] is not None


def checkpoints_made_by() -> str | None:
    """The package that makes LangGraph's tables, with its version; None where it is not installed."""
    try:
        return f"langgraph-checkpoint-postgres {version('langgraph-checkpoint-postgres')}"
    except PackageNotFoundError:
        return None


async def checkpoints_are_current(database: Database) -> bool:
    """Whether LangGraph's tables are those of the installed package. Does not import it."""
    connection = await database.connect()
    async with connection:
        cursor = await connection.execute("SELECT obj_description(to_regclass('checkpoints'), 'pg_class')")
        row = await cursor.fetchone()
    return row is not None and row[0] == checkpoints_made_by()


@asynccontextmanager
async def sole_runner(database: Database, wait_seconds: float = 60) -> AsyncGenerator[Connection]:
    """A connection without time limits, held by one runner at a time."""
    unlimited = {"statement_timeout": "0", "lock_timeout": "0", "idle_in_transaction_session_timeout": "0"}
    connection = await database.connect(**unlimited)
    try:
        await _lock(connection, database.schema, wait_seconds)
        yield connection
    finally:
        await connection.close()


async def _lock(connection: Connection, schema: str, wait_seconds: float) -> None:
    """Polled: a blocked pg_advisory_lock() holds a snapshot, for which CREATE INDEX CONCURRENTLY waits for ever."""
    deadline = time.monotonic() + wait_seconds
    while not await _try_lock(connection, schema):
        if time.monotonic() > deadline:
            raise Unavailable(f"Another `outlast migrate` has held the lock for {wait_seconds:g} s")
        await asyncio.sleep(_LOCK_POLL_SECONDS)


async def _try_lock(connection: Connection, schema: str) -> bool:
    cursor = await connection.execute(
        "SELECT pg_try_advisory_lock(hashtext('outlast.migrate'), hashtext(%s))", (schema,)
    )
    row = await cursor.fetchone()
    return bool(row and row[0])


async def _missing(connection: Connection, migrations: list[Migration]) -> list[Migration]:
    cursor = await connection.execute("SELECT version, checksum FROM schema_migrations")
    applied: dict[int, str] = dict(await cursor.fetchall())
    if unknown := sorted(set(applied) - {migration.version for migration in migrations}):
        raise SchemaMismatch(
            f"The database has migrations that this release does not know ({unknown}): upgrade Outlast"
        )
    for migration in migrations:
        if applied.get(migration.version, migration.checksum) != migration.checksum:
            raise SchemaMismatch(f"{migration.name} was applied in another form: an applied migration is never edited")
    return [migration for migration in migrations if migration.version not in applied]


async def _apply(connection: Connection, migration: Migration) -> None:
    # Without parameters the text is sent as it is: several statements, and % means itself.
    if migration.transactional:
        async with connection.transaction():
            await connection.execute(migration.text.encode())
            await _record(connection, migration)
    else:
        await connection.execute(migration.text.encode())
        await _record(connection, migration)


async def _record(connection: Connection, migration: Migration) -> None:
    await connection.execute(
        "INSERT INTO schema_migrations (version, name, checksum) VALUES (%s, %s, %s)",
        (migration.version, migration.name, migration.checksum),
    )
