"""The time of day in a zone given by its IANA name, or by the last part of one."""

from __future__ import annotations

import zoneinfo
from datetime import datetime
from functools import cache

from .steps import ToolError
from .words import fold

__all__ = ["tell_time"]

_FORMAT = "%Y-%m-%d %H:%M:%S"


def tell_time(now: datetime, timezone: str | None) -> str:
    """``now`` (which is in UTC) as text, in UTC and in the zone. Raises `ToolError` for an unknown zone."""
    text = f"{now:{_FORMAT}} UTC"
    if timezone is None or fold(timezone) in {"utc", "gmt"}:
        return text
    name = _zone_name(timezone)
    there = now.astimezone(zoneinfo.ZoneInfo(name))
    return f"{there.isoformat(' ', 'seconds')} {name} ({there:%A}), {text}"


def _zone_name(wanted: str) -> str:
    """The zone's full name. Only names in the list are ever opened: a zone is a path on disk."""
    known = _known_zones()
    folded = _comparable(wanted)
    whole = [name for name in known if _comparable(name) == folded]
    last = [name for name in known if _comparable(name.rpartition("/")[2]) == folded]
    if not known:
        raise ToolError("this machine has no time zone data")
    if not whole and not last:
        raise ToolError(f"no IANA time zone is called {wanted}")
    return (whole or last)[0]


@cache
def _known_zones() -> list[str]:
    return sorted(zoneinfo.available_timezones())


def _comparable(name: str) -> str:
    return fold(name).strip().replace(" ", "_")
