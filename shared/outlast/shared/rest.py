"""Rest: a process with nothing to do leaves the database alone, so that one that is paid by use can be suspended.

Whoever finds something to do stirs, and thereby tells all others: a run must be found again also when the process that
knew of it is gone. Nobody rests who cannot be told.
"""

from __future__ import annotations

import asyncio
import math
import time
from contextlib import suppress
from typing import Protocol

from .settings import Settings

LOOK_ANYWAY_SECONDS = 3600.0
"""So often a resting process looks all the same: for what nobody told it, and for old runs to remove."""
_TELL_SECONDS = 10.0
_TOLD_TIMES = 3  # at least, in the time after which the others would rest


class Ear(Protocol):
    """What `hints.Hints` is to it."""

    hearing: bool

    def awake(self) -> None: ...


class Rest:
    """Everything in a process that asks the database by itself, rather than for somebody, asks here first."""

    def __init__(self, settings: Settings, hints: Ear) -> None:
        self._after = settings.rest_after_seconds or math.inf
        self._hints = hints
        self._awake_until = time.monotonic() + self._after
        self._told_at = -math.inf
        self._stirred = asyncio.Event()

    @property
    def resting(self) -> bool:
        return self._hints.hearing and time.monotonic() >= self._awake_until

    @property
    def since(self) -> float:
        """When this rest began, or the next will, by the monotonic clock."""
        return self._awake_until

    def stir(self) -> None:
        """There is something to do: look at the database, here and everywhere."""
        self.stirred()
        if time.monotonic() - self._told_at >= min(_TELL_SECONDS, self._after / _TOLD_TIMES):
            self._told_at = time.monotonic()
            self._hints.awake()

    def stirred(self) -> None:
        """Somebody says that there is something to do, or may have said so unheard."""
        self._awake_until = time.monotonic() + self._after
        self._stirred.set()

    async def over(self, *, at_most: float = math.inf) -> None:
        """Wait while this process rests, for so many seconds at most."""
        deadline = time.monotonic() + at_most
        while self.resting and (left := deadline - time.monotonic()) > 0:
            self._stirred.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout(None if left == math.inf else left):
                    await self._stirred.wait()
