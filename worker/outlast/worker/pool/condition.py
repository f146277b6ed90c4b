"""How a worker is, for the host that asks: whether to let it live, and whether it takes runs."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

_CHILDLESS_SECONDS = 60.0
"""A child that dies is replaced at once, and after 15 s at most when it keeps dying; one may take its time to load."""


class Condition:
    """``children``: how many there are. ``missing_since``: when beats began to fail, if they do, by ``clock``:
    monotonic seconds.

    A database that is away is no reason to end a worker: its successor would not reach it either, and all workers
    would be ended at once. It only makes the worker unready.
    """

    def __init__(
        self,
        children: Callable[[], int],
        missing_since: Callable[[], float | None],
        *,
        lease_seconds: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._children = children
        self._missing_since = missing_since
        self._lease_seconds = lease_seconds
        self._clock = clock
        self._childless_since: float | None = None
        self.keeping: asyncio.Task[None] | None = None
        """The beat and the sweep, once they have begun."""
        self.draining = False

    def health(self) -> str | None:
        """Why the worker will not get well by itself. That it answers shows that its loop turns."""
        if self.keeping is None or self.draining:
            return None
        if self.keeping.done():
            return "its beat has ended"
        if self._children():
            self._childless_since = None
            return None
        now = self._clock()
        self._childless_since = now if self._childless_since is None else self._childless_since
        missing = now - self._childless_since
        return f"it has had no child for {missing:.0f} s" if missing >= _CHILDLESS_SECONDS else None

    def readiness(self) -> str | None:
        """Why it takes no runs now."""
        if self.keeping is None:
            return "it is starting"
        if self.draining:
            return "it is draining"
        if self.keeping.done():
            return "its beat has ended"
        if not self._children():
            return "it has no child"
        missing = self._missing_since()
        if missing is not None and (seconds := self._clock() - missing) >= self._lease_seconds:
            return f"no beat has reached the database for {seconds:.0f} s"
        return None
