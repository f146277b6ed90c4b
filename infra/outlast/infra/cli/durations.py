"""Spans of time as people write them: 90s, 12h, 30d."""

from __future__ import annotations

import re

from outlast.shared.domain.errors import Invalid

_UNIT_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}


def seconds(option: str, text: str) -> int:
    """Raises Invalid, which names the option."""
    found = re.fullmatch(r"([1-9][0-9]{0,4})([smhdw])", text)
    if found is None:
        raise Invalid(f"{option}: a number and one of s, m, h, d, w, as in 90d.")
    return int(found[1]) * _UNIT_SECONDS[found[2]]
