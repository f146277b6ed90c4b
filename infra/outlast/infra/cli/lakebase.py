"""``outlast lakebase``: the grants that an app's service principal needs, printed or made."""

from __future__ import annotations

import asyncio
import re
from typing import Annotated
from uuid import UUID

import typer

from outlast.shared.connections import Connection
from outlast.shared.domain.errors import Invalid, NotAllowed, NotFound, OutlastError, Unavailable
from outlast.shared.domain.plain_text import on_a_line
from outlast.shared.settings import Settings
from outlast.shared.store import granting
from outlast.shared.store.granting import IdentityType, Statement

from .operators import fail, operators_database, operators_settings
from .terminal import echo

app = typer.Typer(no_args_is_help=True, pretty_exceptions_enable=False, rich_markup_mode=None)

_EMAIL = re.compile(r"[^@\s\x00-\x1f]+@[^@\s\x00-\x1f]+")
_TIMEOUT = "60s"


@app.callback()
def lakebase() -> None:
    """What a Lakebase database needs before others can use it."""


@app.command()
def grant(
    principal: Annotated[
        str, typer.Argument(help="The service principal's client id (of an app: DATABRICKS_CLIENT_ID), or an email.")
    ],
    run: Annotated[bool, typer.Option("--run", help="Make the grants, with your own login.")] = False,
) -> None:
    """Print the SQL that lets a principal use the database and Outlast's schema in it; safe to repeat."""
    try:
        config = operators_settings()
        role, identity = role_of(principal)
        if run:
            echo("\n".join(asyncio.run(_run(config, role, identity))))
        else:
            echo("\n".join(printed(config, role, identity)))
    except OutlastError as error:
        fail(error)


def role_of(principal: str) -> tuple[str, IdentityType]:
    """The role's name and what kind of identity it is of. Raises Invalid."""
    if _EMAIL.fullmatch(principal):
        return principal, "USER"
    try:
        client_id = UUID(principal)
    except ValueError:
        client_id = None
    if client_id is None or str(client_id) != principal.lower():
        raise Invalid(
            "PRINCIPAL: the client id of a service principal, as in 1f2e3d4c-0000-4000-8000-1234567890ab, or an email. "
            "`databricks apps get APP` shows an app's as service_principal_client_id."
        )
    return str(client_id), "SERVICE_PRINCIPAL"


def printed(config: Settings, role: str, identity: IdentityType) -> list[str]:
    """The statements with what is to be known of them, for any SQL editor."""
    database, schema = config.lakebase_database, config.db_schema
    return [
        f"-- In the database {on_a_line(database)}, as its owner or a member of databricks_superuser,",
        "-- logged in with a token of the workspace.",
        "-- The role, and what it needs to make its own schema:",
        *granting.as_text([*granting.making_role(role, identity), *granting.entering(role, database=database)]),
        f"-- Only where another role has made the schema {on_a_line(schema)} already, as that role:",
        *granting.as_text(granting.using_schema(role, schema=schema)),
    ]


async def _run(config: Settings, role: str, identity: IdentityType) -> list[str]:
    """What was done, line by line. Raises OutlastError."""
    connection = operators_database(config).dedicated(statement_timeout=_TIMEOUT)
    try:
        return await connection.run(lambda c: _grant(c, config.db_schema, role, identity))
    except Unavailable as error:
        if "permission denied" in error.message or "must be" in error.message:
            advice = "Run it as the owner of the database and of its schema, with CAN MANAGE on the instance or project"
            raise NotAllowed(f"{error.message.rstrip('.')}. {advice}.") from error
        raise
    finally:
        await connection.close()


async def _grant(connection: Connection, schema: str, role: str, identity: IdentityType) -> list[str]:
    found = await granting.standing(connection, role, schema=schema)
    statements: list[Statement] = []
    if not found.has_role:
        if not found.has_databricks_auth:
            raise NotFound(
                f"There is no role {role}, and this Postgres has no databricks_auth, which makes roles for the "
                "identities of a workspace: is it a Lakebase?"
            )
        statements += granting.making_role(role, identity)
    statements += granting.entering(role, database=found.database)
    if found.has_schema:
        statements += granting.using_schema(role, schema=schema)
    await granting.execute(connection, statements)
    if lacking := await granting.lacking(connection, role, schema=schema):
        few = ", ".join(lacking[:5]) + (f" and {len(lacking) - 5} more" if len(lacking) > 5 else "")
        raise NotAllowed(f"{role} still lacks {few}: grant them as the role that owns them.")
    return [*granting.as_text(statements), f"-- done, in {on_a_line(found.database)}"]
