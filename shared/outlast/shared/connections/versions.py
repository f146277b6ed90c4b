"""Versions of Postgres: which are refused, and how they are written."""

from __future__ import annotations

from outlast.shared.domain.errors import Unfit

OLDEST_MAJOR = 14
_FIRST_OF_TWO_PARTS = 100_000  # as in 13.4; before it, as in 9.6.24


def check_version(number: int) -> None:
    """Raises Unfit when a server of this version cannot be worked on. ``number`` is as in 180003; 0 is unknown."""
    if 0 < number < OLDEST_MAJOR * 10_000:
        raise Unfit(f"PostgreSQL {written(number)} is too old: Outlast needs {OLDEST_MAJOR} or newer.")


def written(number: int) -> str:
    major, minor = divmod(number, 10_000)
    return f"{major}.{minor}" if number >= _FIRST_OF_TWO_PARTS else f"{major}.{minor // 100}.{minor % 100}"
