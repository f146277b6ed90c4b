"""A process that never rests, since nobody could tell it that there is something to do."""

from __future__ import annotations

from outlast.shared.rest import Rest
from outlast.shared.settings import Settings


class _Deaf:
    hearing = False

    def awake(self) -> None:
        """Nobody is told."""


def awake(settings: Settings) -> Rest:
    return Rest(settings, _Deaf())
