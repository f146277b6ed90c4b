"""Where the paths of a container are on this machine."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path


class Paths:
    """Translates the paths of a container, and texts that hold some, to folders here."""

    def __init__(self, places: Mapping[str, Path]) -> None:
        self._places = dict(places)
        names = "|".join(re.escape(place) for place in sorted(places, key=len, reverse=True))
        self._pattern = re.compile(rf"(?<![\w./-])({names})(?=[/:\s'\"]|$)")

    def here(self, text: str) -> str:
        return self._pattern.sub(lambda match: str(self._places[match[1]]), text)

    def path(self, text: str) -> Path:
        return Path(self.here(text))
