"""Where a database is, as libpq wants it told: asked anew for each connection, so that rotating credentials fit in."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from outlast.shared.lakebase import Lakebase

ConnInfo = Callable[[], Awaitable[str]]


def fixed(url: str) -> ConnInfo:
    """An address that never changes."""

    async def conninfo() -> str:
        return url

    return conninfo


def minted(lakebase: Lakebase) -> ConnInfo:
    """The address of a Lakebase, with a login that is taken now."""

    async def conninfo() -> str:
        return make_conninfo(**await lakebase.parameters())

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
