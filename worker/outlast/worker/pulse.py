"""Whether the loop of a child moves: it says so again and again, in memory that its parent shares."""

from __future__ import annotations

import asyncio
import ctypes
import time

from .lease_clock import Shared

BEAT_SECONDS = 0.2


class Pulse:
    """Written by the child, read by the parent, in seconds of the monotonic clock."""

    def __init__(self, memory: Shared | None = None) -> None:
        self._memory = ctypes.c_double() if memory is None else memory

    async def beat_forever(self) -> None:
        while True:
            self._memory.value = time.monotonic()
            await asyncio.sleep(BEAT_SECONDS)

    @property
    def last(self) -> float:
        return self._memory.value


class Watch:
    """How long a pulse has been missed, by somebody who may be held up too: only time in which he looked counts."""

    def __init__(self, pulse: Pulse, longest_gap: float) -> None:
        self._pulse = pulse
        self._longest_gap = longest_gap
        self._seen = 0.0
        self._still_since = self._looked_at = -longest_gap

    def still_seconds(self, now: float) -> float:
        """To be asked more often than each ``longest_gap`` seconds; after a longer pause it begins anew."""
        moved, paused = self._pulse.last != self._seen, now - self._looked_at > self._longest_gap
        self._seen, self._looked_at = self._pulse.last, now
        if moved or paused:
            self._still_since = now
        return now - self._still_since
