"""The Postgres roles of a workspace's principals, with what a test wants them to be allowed."""

from __future__ import annotations

import tempfile
from collections.abc import Generator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import LiteralString

import psycopg
from psycopg import sql

SCHEMA = "outlast"


class Rights(StrEnum):
    """Each has those before it too."""

    NO_ROLE = "no role"
    NOTHING = "nothing"
    CONNECT = "connect"
    CREATE = "create"
    """May make schemas in the database."""
    OWNER = "owner"
    """Has made our schema: a principal that migrated it."""
    SUPERUSER = "superuser"
    """May all, as a database's owner may."""


def make_role(url: str, name: str, rights: Rights) -> None:
    if rights is Rights.NO_ROLE:
        return
    role = sql.Identifier(name)
    with psycopg.connect(url, autocommit=True) as connection:
        database = sql.Identifier(connection.info.dbname)
        superuser = sql.SQL("SUPERUSER" if rights is Rights.SUPERUSER else "")
        connection.execute(_composed("CREATE ROLE {} LOGIN {}", role, superuser))
        connection.execute(_composed("REVOKE CONNECT ON DATABASE {} FROM PUBLIC", database))
        if rights is not Rights.NOTHING:
            connection.execute(_composed("GRANT CONNECT ON DATABASE {} TO {}", database, role))
        if rights in (Rights.CREATE, Rights.OWNER):
            connection.execute(_composed("GRANT CREATE ON DATABASE {} TO {}", database, role))
        if rights is Rights.OWNER:
            for owned in _everything_of_ours(connection):
                connection.execute(_composed("ALTER {} OWNER TO {}", owned, role))


def _everything_of_ours(connection: psycopg.Connection) -> list[sql.Composable]:
    """The schema, its tables and views; indexes and sequences of columns go with them."""
    kinds: dict[str, LiteralString] = {"r": "TABLE", "p": "TABLE", "v": "VIEW", "m": "MATERIALIZED VIEW"}
    rows = connection.execute(
        "SELECT relkind, relname FROM pg_class WHERE relnamespace = to_regnamespace(%s) AND relkind = ANY(%s)",
        (SCHEMA, list(kinds)),
    ).fetchall()
    tables = [_composed("{} {}", sql.SQL(kinds[kind]), sql.Identifier(SCHEMA, name)) for kind, name in rows]
    return [_composed("SCHEMA {}", sql.Identifier(SCHEMA)), *tables] if _has_schema(connection) else []


def _has_schema(connection: psycopg.Connection) -> bool:
    return connection.execute("SELECT to_regnamespace(%s) IS NOT NULL", (SCHEMA,)).fetchone() == (True,)


def drop_role(url: str, name: str) -> None:
    """What it owns stays, as the administrator's."""
    role = sql.Identifier(name)
    with psycopg.connect(url, autocommit=True) as connection:
        if connection.execute("SELECT 1 FROM pg_roles WHERE rolname = %s", (name,)).fetchone():
            connection.execute(_composed("REASSIGN OWNED BY {} TO CURRENT_USER", role))
            connection.execute(_composed("DROP OWNED BY {}", role))
            connection.execute(_composed("DROP ROLE {}", role))


def _composed(text: str, *parts: sql.Composable) -> sql.Composed:
    return sql.SQL(text).format(*parts)  # type: ignore[arg-type]


_CONTROL = "default_version = '1.0'\nrelocatable = true\nsuperuser = false\n"
_MAKES_ROLES = """
CREATE FUNCTION databricks_create_role(identity_name text, identity_type text) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    IF identity_type NOT IN ('USER', 'GROUP', 'SERVICE_PRINCIPAL') THEN
        RAISE EXCEPTION 'unknown identity type %', identity_type;
    END IF;
    IF (identity_type = 'USER') <> (identity_name LIKE '%@%') THEN
        RAISE EXCEPTION 'the workspace has no identity % of the type %', identity_name, identity_type;
    END IF;
    EXECUTE format('CREATE ROLE %I LOGIN', identity_name);
END $$;
"""


@contextmanager
def databricks_auth(url: str) -> Generator[None]:
    """While it lasts the database has the extension that makes roles for identities. Needs Postgres 18."""
    with (
        tempfile.TemporaryDirectory(prefix="auth-") as folder,
        psycopg.connect(url, autocommit=True) as connection,
    ):
        extension = Path(folder) / "extension"
        extension.mkdir()
        (extension / "databricks_auth.control").write_text(_CONTROL)
        (extension / "databricks_auth--1.0.sql").write_text(_MAKES_ROLES)
        Path(folder).chmod(0o755)  # the server may be another user
        statement = "ALTER DATABASE {} SET extension_control_path = {}"
        path = sql.Literal(f"{folder}:$system")
        connection.execute(_composed(statement, sql.Identifier(connection.info.dbname), path))
        yield
