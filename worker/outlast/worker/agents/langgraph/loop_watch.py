"""Waiting in a thread for an event loop which may itself be waiting for that thread."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import TimeoutError as FutureTimeoutError
from typing import Any

_ANSWER_SECONDS = 1.0  # a loop that runs answers within this; one that does not is held up by what waits for it
_LOOK_SECONDS = 0.2


class LoopWatch:
    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._asked: threading.Event | None = None
        """A question that the loop has not answered in time; while it is open the loop counts as held up."""

    def run(self, wait: Callable[[], Coroutine[Any, Any, None]]) -> bool:
        """Wait for this on the loop. Returns False when the loop stands still. Raises what ``wait`` raises."""
        if not self._answers():
            return False
        future = asyncio.run_coroutine_threadsafe(wait(), self._loop)
        while True:
            try:
                future.result(_LOOK_SECONDS)
                return True
            except FutureTimeoutError:
                if future.done():  # it is the coroutine's own
                    raise
                if not self._answers():
                    future.cancel()
                    return False

    def _answers(self) -> bool:
        if self._asked is not None and not self._asked.is_set():
            return False
        asked = threading.Event()
        self._loop.call_soon_threadsafe(asked.set)
        self._asked = None if asked.wait(_ANSWER_SECONDS) else asked
        return self._asked is None
