"""A database for code that stands in its event loop's way: an agent's node may call by a sync method what needs one.

The loop of the process cannot do the work then, since it waits for it. A thread with a loop and a few connections of
its own does, and the caller waits, in whatever thread it is. The thread starts with the first such call.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any, TypeVar

from outlast.shared.domain.errors import Stopping

if TYPE_CHECKING:
    from .database import Database

T = TypeVar("T")

_CONNECTIONS = 2
_END_SECONDS = 1.0


class SecondLoop:
    def __init__(self, make: Callable[[], Database]) -> None:
        """``make`` gives the database of the second loop, which is the same for Postgres."""
        self._make = make
        self._guard = threading.Lock()
        self._started: Future[tuple[asyncio.AbstractEventLoop, Database]] | None = None
        self._ended: Future[None] = Future()
        self._ending: asyncio.Event | None = None

    def call(self, work: Callable[[Database], Coroutine[Any, Any, T]]) -> T:
        """Do the work on the second loop and wait for it. Raises Stopping once the first loop's pool is closed."""
        loop, database = self._start().result()
        try:
            done = asyncio.run_coroutine_threadsafe(work(database), loop)
        except RuntimeError as error:  # the loop is closed
            raise Stopping from error
        return done.result()

    async def close(self) -> None:
        """End the thread; a caller that still waits for its work gets Stopping. Waits for a moment only."""
        with self._guard:
            started, self._started = self._started, Future()
            self._started.set_exception(Stopping())
        if started is None or started.exception() is not None:
            return
        loop, _ = started.result()
        assert self._ending is not None, "it has started"
        loop.call_soon_threadsafe(self._ending.set)
        await asyncio.wait([asyncio.wrap_future(self._ended)], timeout=_END_SECONDS)

    def _start(self) -> Future[tuple[asyncio.AbstractEventLoop, Database]]:
        with self._guard:
            if self._started is None:
                self._started = Future()
                threading.Thread(target=self._run, args=(self._started,), name="second loop", daemon=True).start()
            return self._started

    def _run(self, started: Future[tuple[asyncio.AbstractEventLoop, Database]]) -> None:
        try:
            asyncio.run(self._serve(started))
        except BaseException as error:
            if started.done():
                raise
            started.set_exception(error)
        finally:
            self._ended.set_result(None)

    async def _serve(self, started: Future[tuple[asyncio.AbstractEventLoop, Database]]) -> None:
        self._ending = asyncio.Event()
        async with self._make().pooled(max_connections=_CONNECTIONS) as database:
            started.set_result((asyncio.get_running_loop(), database))
            await self._ending.wait()


async def turns(loop: asyncio.AbstractEventLoop, seconds: float) -> bool:
    """Whether a loop of another thread gets to its work within that time."""
    moved: Future[None] = Future()
    loop.call_soon_threadsafe(moved.set_result, None)
    done, _ = await asyncio.wait([asyncio.wrap_future(moved)], timeout=seconds)
    return bool(done)
