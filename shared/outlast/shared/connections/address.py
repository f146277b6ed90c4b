"""Where a database is, as libpq wants it told: asked anew for each connection, so that rotating credentials fit in."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from outlast.shared.lakebase import Lakebase
from outlast.shared.settings import SettingsError

ConnInfo = Callable[[], Awaitable[str]]

_FORM = "postgresql://user:password@host:5432/name"
_QUOTED = "percent-encode what a user or password holds of / ? # @ : % and spaces"
_CHOICES = {
    "sslmode": ("disable", "allow", "prefer", "require", "verify-ca", "verify-full"),
    "channel_binding": ("disable", "prefer", "require"),
    "gssencmode": ("disable", "prefer", "require"),
    "target_session_attrs": ("any", "read-write", "read-only", "primary", "standby", "prefer-standby"),
}


def fixed(url: str) -> ConnInfo:
    """An address that never changes."""

    async def conninfo() -> str:
        return url

    return conninfo


def checked(url: str) -> str:
    """The address of DATABASE_URL. Raises SettingsError, which says why libpq would refuse it and shows no value."""
    if wrong := _wrong_with(url):
        raise SettingsError(f"DATABASE_URL: {wrong}")
    return url


def _wrong_with(url: str) -> str | None:
    try:
        given = conninfo_to_dict(url)
    except psycopg.Error as error:
        return _why(str(error), url)
    ports = str(given.get("port") or "5432").split(",")
    if not all(re.fullmatch(r"\d{0,5}", port) and int(port or 5432) in range(1, 65536) for port in ports):
        return f"the port is not a number from 1 to 65535. Write {_FORM}; {_QUOTED}"
    for option, values in _CHOICES.items():
        if given.get(option) and given[option] not in values:
            return f"{option} is none of {', '.join(values)}"
    return None


def _why(said: str, url: str) -> str:
    """libpq's words quote the address, so others are used; an option is named where it is no part of a password."""
    is_url = url.startswith(("postgresql://", "postgres://"))
    if option := re.match(r'invalid (?:URI query parameter|connection option)[^"]*"(\w+)"', said):
        named = f" ({option[1]})" if is_url and "@" not in url.partition("?")[2] else ""
        return f"it has an option that libpq does not know{named}"
    if "unexpected spaces" in said:
        return f"it holds a space. Write %20; {_QUOTED}"
    if "percent-encoded" in said:
        return f"a % in it begins no percent-encoded character. Write %25; {_QUOTED}"
    if "://" in url and not is_url:
        return f"it does not begin with postgresql://. Write {_FORM}"
    return f"it is not an address that libpq understands. Write {_FORM}; {_QUOTED}"


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
