"""Which schema the code needs and which the database has."""

from __future__ import annotations

from outlast.shared.connections import Connection
from outlast.shared.domain.errors import SchemaMismatch

NEEDED_VERSION = 8


async def check(connection: Connection) -> None:
    """Raises SchemaMismatch unless the database has exactly the migrations this release needs."""
    cursor = await connection.execute("SELECT to_regclass('schema_migrations') IS NOT NULL")
    row = await cursor.fetchone()
    if row is None or not row[0]:
        raise SchemaMismatch("The database has no Outlast schema: run `outlast migrate`")
    cursor = await connection.execute("SELECT coalesce(max(version), 0) FROM schema_migrations")
    row = await cursor.fetchone()
    version = row[0] if row else 0
    if version < NEEDED_VERSION:
        raise SchemaMismatch(
            f"The database's schema is at {version}, this release needs {NEEDED_VERSION}: run `outlast migrate`"
        )
    if version > NEEDED_VERSION:
        raise SchemaMismatch(
            f"The database's schema is at {version}, this release knows {NEEDED_VERSION}: "
            "upgrade Outlast, or use another OUTLAST_SCHEMA"
        )
