"""What a role needs to serve Outlast from a database that is somebody else's, as statements that may be repeated."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, LiteralString

from psycopg.rows import class_row
from psycopg.sql import SQL, Composed, Identifier, Literal as Quoted

from outlast.shared.connections import Connection

IdentityType = Literal["SERVICE_PRINCIPAL", "USER"]
Statement = Composed


@dataclass(frozen=True, slots=True)
class Standing:
    """What there is already."""

    database: str
    has_role: bool
    has_schema: bool
    has_databricks_auth: bool
    """Whether the server has the extension that makes roles for identities of a workspace."""


@dataclass(frozen=True, slots=True)
class Maker:
    """Whether our user may make our schema."""

    user: str
    database: str
    """Quoted as SQL needs it, both."""
    lacks: bool


def as_text(statements: Sequence[Statement]) -> list[str]:
    return [f"{statement.as_string(None)};" for statement in statements]


def making_role(role: str, identity: IdentityType) -> list[Statement]:
    """Makes the role of an identity of the workspace, where it is not there."""
    return [
        SQL("CREATE EXTENSION IF NOT EXISTS databricks_auth").format(),
        SQL("SELECT databricks_create_role({}, {}) WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = {})").format(
            Quoted(role), Quoted(identity), Quoted(role)
        ),
    ]


def entering(role: str, *, database: str) -> list[Statement]:
    """Lets the role connect, and make its schema there."""
    return [SQL("GRANT CONNECT, CREATE ON DATABASE {} TO {}").format(Identifier(database), Identifier(role))]


_ON_SCHEMA: Sequence[LiteralString] = (
    "GRANT USAGE, CREATE ON SCHEMA {schema} TO {role}",
    "GRANT ALL ON ALL TABLES IN SCHEMA {schema} TO {role}",
    "GRANT ALL ON ALL SEQUENCES IN SCHEMA {schema} TO {role}",
    "GRANT ALL ON ALL FUNCTIONS IN SCHEMA {schema} TO {role}",
    "ALTER DEFAULT PRIVILEGES IN SCHEMA {schema} GRANT ALL ON TABLES TO {role}",
    "ALTER DEFAULT PRIVILEGES IN SCHEMA {schema} GRANT ALL ON SEQUENCES TO {role}",
    "ALTER DEFAULT PRIVILEGES IN SCHEMA {schema} GRANT ALL ON FUNCTIONS TO {role}",
)


def using_schema(role: str, *, schema: str) -> list[Statement]:
    """Lets the role use a schema that another role has made, and what that role makes in it later."""
    return [SQL(text).format(schema=Identifier(schema), role=Identifier(role)) for text in _ON_SCHEMA]


async def standing(connection: Connection, role: str, *, schema: str) -> Standing:
    async with connection.cursor(row_factory=class_row(Standing)) as cursor:
        await cursor.execute(
            """SELECT current_database()::text AS database,
                      EXISTS (SELECT FROM pg_roles WHERE rolname = %s) AS has_role,
                      EXISTS (SELECT FROM pg_namespace WHERE nspname = %s) AS has_schema,
                      EXISTS (SELECT FROM pg_available_extensions WHERE name = 'databricks_auth')
                      AS has_databricks_auth""",
            (role, schema),
        )
        found = await cursor.fetchone()
    assert found is not None
    return found


async def may_make_schemas(connection: Connection) -> Maker:
    async with connection.cursor(row_factory=class_row(Maker)) as cursor:
        await cursor.execute(
            """SELECT quote_ident(current_user) AS "user", quote_ident(current_database()) AS database,
                      NOT has_database_privilege(current_database(), 'CREATE') AS lacks"""
        )
        found = await cursor.fetchone()
    assert found is not None
    return found


async def execute(connection: Connection, statements: Sequence[Statement]) -> None:
    """All of them or none."""
    async with connection.transaction():
        await connection.execute("SET LOCAL search_path TO DEFAULT")  # an extension goes where everybody finds it
        for statement in statements:
            await connection.execute(statement)


async def lacking(connection: Connection, role: str, *, schema: str) -> list[str]:
    """What the role still may not do: a GRANT by one who may not grant it is only a warning."""
    cursor = await connection.execute(
        """SELECT 'CONNECT on the database' WHERE NOT has_database_privilege(%(role)s, current_database(), 'CONNECT')
           UNION ALL
           SELECT 'CREATE on the database' WHERE NOT has_database_privilege(%(role)s, current_database(), 'CREATE')
           UNION ALL
           SELECT 'USAGE on the schema' FROM pg_namespace
           WHERE nspname = %(schema)s AND NOT has_schema_privilege(%(role)s, oid, 'USAGE')
           UNION ALL
           SELECT 'the table ' || c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
           WHERE n.nspname = %(schema)s AND c.relkind IN ('r', 'p')
           AND NOT (has_table_privilege(%(role)s, c.oid, 'SELECT') AND has_table_privilege(%(role)s, c.oid, 'INSERT')
                    AND has_table_privilege(%(role)s, c.oid, 'UPDATE')
                    AND has_table_privilege(%(role)s, c.oid, 'DELETE'))""",
        {"role": role, "schema": schema},
    )
    return [what for (what,) in await cursor.fetchall()]
