"""Which run ends processes without a word: what one death does not tell, several do. Pure."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Set as AbstractSet
from uuid import UUID

from outlast.shared.domain.runs import Lease

_LIMITED_SECONDS = 60.0
_CHANCE_DEATHS = 2  # that the same runs may have seen: a process that is killed from outside says no word either


class Suspects:
    """The runs that were there each time. After several deaths a child takes half of them, so the innocent drop out."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._runs: AbstractSet[UUID] = frozenset()
        self._deaths = 0
        self._died_at = -math.inf

    def convicted(self, there: AbstractSet[Lease]) -> AbstractSet[Lease]:
        """Whose doing it is that a process died in which these were; nothing while it may be one of several."""
        runs = {lease.run_id for lease in there}
        again = self._runs & runs
        self._deaths = self._deaths + 1 if again else 1
        self._runs = again or runs
        self._died_at = self._clock()
        return {lease for lease in there if lease.run_id in self._runs} if len(self._runs) == 1 else frozenset()

    def limit(self) -> float:
        """How many runs a child takes at once: fewer for a while when it is not known which of several it was."""
        by_chance = self._deaths <= _CHANCE_DEATHS
        if by_chance or len(self._runs) < 2 or self._clock() - self._died_at > _LIMITED_SECONDS:
            return math.inf
        return len(self._runs) // 2
