"""Names and addresses of hosts."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable

_HOST = re.compile(r"(\[[0-9a-f:.]+\]|[^:\[\]/@\s]+)(?::\d*)?", re.IGNORECASE)


def is_loopback(name: str) -> bool:
    """Whether it leads to this machine and to no other: browsers and resolvers keep ``localhost`` to themselves."""
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


def name_in(host: str) -> str | None:
    """The name or address in ``host:port``, in small letters; None when it is not of that form."""
    found = _HOST.fullmatch(host)
    return found[1].strip("[]").lower().removesuffix(".") if found else None


def is_among(name: str, patterns: Iterable[str]) -> bool:
    """Whether one of the patterns means it: ``name``, ``*.name`` for all names below it, or ``*``."""
    return any(
        pattern in (name, "*") or (pattern.startswith("*.") and name.endswith(pattern[1:])) for pattern in patterns
    )
