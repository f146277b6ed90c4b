"""``outlast keys``: who may call. Works on the database: a key is made and revoked whether or not an API is running."""

from __future__ import annotations

import os
from datetime import datetime
from typing import Annotated, Any

import typer

from outlast.shared.domain import keys as domain
from outlast.shared.domain.errors import Invalid, NotFound
from outlast.shared.domain.ids import new_uuid
from outlast.shared.domain.keys import ApiKey, Identity, Scope
from outlast.shared.store import keys as store

from .operators import fail, seconds_of, table, with_database
from .terminal import echo, echo_json, echo_line

app = typer.Typer(no_args_is_help=True, pretty_exceptions_enable=False, rich_markup_mode=None)


@app.command()
def create(
    name: Annotated[str, typer.Argument(help="What the key is for, to recognise it in the list.")],
    principal: Annotated[str | None, typer.Option(help="Whose runs it opens; the name otherwise.")] = None,
    scope: Annotated[list[Scope] | None, typer.Option(help="May be given twice.")] = None,
    expires_in: Annotated[str | None, typer.Option(metavar="TIME", help="As in 12h, 90d; never otherwise.")] = None,
) -> None:
    """Make a key. It is shown once: alone on the standard output, so that it can be piped."""
    life = None if expires_in is None else seconds_of(expires_in, "--expires-in")
    for option, given in (("NAME", name), ("--principal", name if principal is None else principal)):
        if not domain.is_principal(given):
            fail(Invalid(f"{option}: 1 to {domain.MAX_NAME_CHARACTERS} printable characters."))
    identity = Identity(name if principal is None else principal, frozenset(scope or ()))
    key, key_id = domain.new_key(os.urandom(domain.KEY_BYTES)), new_uuid()
    digest, hint = domain.digest_of(key), domain.hint_of(key)
    with_database(
        lambda c: store.create(
            c, key_id=key_id, digest=digest, hint=hint, name=name, identity=identity, life_seconds=life
        )
    )
    scopes = f", scopes {' '.join(sorted(identity.scopes))}" if identity.scopes else ""
    until = f", for {expires_in}" if expires_in else ""
    echo(f"{domain.key_name(key_id)} of {identity.principal}{scopes}{until}. It is not shown again:", err=True)
    echo(key)


@app.command("list")
def list_keys(as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line.")] = False) -> None:
    """All keys, the newest first. The keys themselves are not kept."""
    found = with_database(store.every)
    if as_json:
        for key in found:
            echo_json(_fields(key))
    elif found:
        echo("\n".join(table(_HEADINGS, [_row(key) for key in found])))
    else:
        echo("No keys.", err=True)


@app.command()
def revoke(
    key: Annotated[str, typer.Argument(metavar="ID", help="key_…, or the hint, or the key itself when it leaked.")],
) -> None:
    """End a key for good: API replicas refuse it within 5 seconds. To revoke it again changes nothing."""
    found = _only(_matching(key))
    ended = with_database(lambda c: store.revoke(c, found.key_id))
    echo_line(f"{domain.key_name(found.key_id)} ({found.name}) {'is revoked' if ended else 'was revoked before'}")


def _matching(given: str) -> list[ApiKey]:
    given = given.rstrip("…")  # with which the list shows that a hint is not all
    if not (given.isascii() and given.isprintable()):
        return []
    key_id, digest = domain.parse_key_name(given), domain.digest_of(given)
    return with_database(lambda c: store.matching(c, key_id=key_id, hint=given, digest=digest))


def _only(found: list[ApiKey]) -> ApiKey:
    if not found:  # what was given is not repeated: it may be a key
        fail(NotFound("There is no such key: `outlast keys list` shows them with their ids and hints."))
    if len(found) > 1:
        fail(Invalid(f"Several keys have this hint: {', '.join(domain.key_name(key.key_id) for key in found)}."))
    return found[0]


_HEADINGS = ("ID", "HINT", "NAME", "PRINCIPAL", "SCOPES", "CREATED", "EXPIRES", "LAST USED", "STATE")


def _row(key: ApiKey) -> tuple[str, ...]:
    return (
        domain.key_name(key.key_id),
        f"{key.hint}…",
        key.name,
        key.identity.principal,
        " ".join(sorted(key.identity.scopes)) or "-",
        _when(key.created_at),
        _when(key.expires_at),
        _when(key.last_used_at),
        key.state,
    )


def _when(time: datetime | None) -> str:
    return time.astimezone().strftime("%Y-%m-%d %H:%M") if time else "-"


def _fields(key: ApiKey) -> dict[str, Any]:
    return {
        "id": domain.key_name(key.key_id),
        "hint": key.hint,
        "name": key.name,
        "principal": key.identity.principal,
        "scopes": sorted(key.identity.scopes),
        "created_at": key.created_at,
        "expires_at": key.expires_at,
        "last_used_at": key.last_used_at,
        "state": key.state,
    }
