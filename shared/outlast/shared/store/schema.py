"""Which schema the code needs and which the database has."""

from __future__ import annotations

from outlast.shared.connections import Connection
from outlast.shared.domain.errors import SchemaMismatch

NEEDED_VERSION = 12


async def version(connection: Connection) -> int | None:
    """The last migration that the database has had; None when it has no schema of ours."""
    cursor = await connection.execute("SELECT to_regclass('schema_migrations') IS NOT NULL")
    row = await cursor.fetchone()
    if row is None or not row[0]:
        return None
    cursor = await connection.execute("SELECT coalesce(max(version), 0) FROM schema_migrations")
    row = await cursor.fetchone()
    return row[0] if row else 0


async def check(connection: Connection) -> None:
    """Raises SchemaMismatch unless the database has exactly the migrations this release needs."""
    found = await version(connection)
    if found is None:
        raise SchemaMismatch("The database has no Outlast schema: run `outlast migrate`")
    if found < NEEDED_VERSION:
        raise SchemaMismatch(
            f"The database's schema is at {found}, this release needs {NEEDED_VERSION}: run `outlast migrate`"
        )
    if found > NEEDED_VERSION:
        raise SchemaMismatch(
            f"The database's schema is at {found}, this release knows {NEEDED_VERSION}: "
            "upgrade Outlast, or use another OUTLAST_SCHEMA"
        )
