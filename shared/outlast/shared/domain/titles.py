"""What a run is called in a list: the beginning of what was asked."""

from __future__ import annotations

import re

MAX_CHARACTERS = 120
_LOOKED_AT = 10 * MAX_CHARACTERS  # of a text of megabytes
_GAPS = re.compile(r"[\s\x00-\x1f\x7f]+")


def title_of(text: str) -> str:
    """The text's first characters on one line; with an ellipsis when there are more."""
    line = _GAPS.sub(" ", text[:_LOOKED_AT]).strip()
    if len(line) <= MAX_CHARACTERS and len(text) <= _LOOKED_AT:
        return line
    return line[: MAX_CHARACTERS - 1].rstrip() + "…"
