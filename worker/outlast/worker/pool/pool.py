"""A Celery pool without tasks: a message wakes the runtime, and is acknowledged when the claim it caused has committed.

Celery's consumer lives in the main thread; the runtime has a loop in a thread of its own.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from typing import Any, ClassVar

import structlog
import uvloop
from celery.concurrency.base import BasePool

from outlast.agent import Agent
from outlast.shared.domain.errors import OutlastError
from outlast.shared.settings import Settings
from outlast.worker.runtime import Runtime, open_runtime

log = structlog.get_logger()

_JOIN_MARGIN_SECONDS = 10.0


class RunPool(BasePool):
    """Celery makes the pool from its class; `serving` gives it the settings."""

    settings: ClassVar[Settings]
    agents: ClassVar[Mapping[str, Agent]]
    body_can_be_buffer = True
    signal_safe = False
    task_join_will_block = False

    @classmethod
    def serving(cls, settings: Settings, agents: Mapping[str, Agent]) -> type[RunPool]:
        return type(cls.__name__, (cls,), {"settings": settings, "agents": agents})

    def on_start(self) -> None:
        self._started: Future[Runtime] = Future()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop: asyncio.Event | None = None
        self._thread = threading.Thread(target=self._run, name="runtime")
        self._thread.start()
        try:
            self._runtime = self._started.result()
        except OutlastError as error:
            log.error("worker.cannot_start", error=error.message)
            raise SystemExit(1) from None  # what Celery ends by without a traceback

    def _run(self) -> None:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(self._serve())

    async def _serve(self) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        try:
            async with open_runtime(self.settings, self.agents) as runtime:
                self._started.set_result(runtime)
                await self._stop.wait()
        except Exception as error:
            if self._started.done():
                raise
            self._started.set_exception(error)

    @property
    def num_processes(self) -> int:
        """What Celery may reserve; claims are bounded by free slots, and a bell is done as soon as its claim is."""
        return self.settings.concurrency

    def on_apply(  # pyright: ignore[reportIncompatibleMethodOverride] — the stubs leave out what Celery passes
        self,
        target: Any,
        args: Any = None,
        kwargs: Any = None,
        callback: Callable[..., Any] | None = None,
        accept_callback: Callable[..., Any] | None = None,
        **_: Any,
    ) -> Future[None]:
        assert self._loop is not None

        def rung(future: Future[None]) -> None:
            if error := future.exception():
                log.warning("bell.unanswered", error=str(error))  # the beat looks for work by itself
            if accept_callback is not None:
                accept_callback(self._thread.native_id, time.monotonic())  # acknowledges the message
            if callback is not None:
                callback((0, None, 0.0))

        future = asyncio.run_coroutine_threadsafe(self._runtime.ring(), self._loop)
        future.add_done_callback(rung)
        return future

    def on_stop(self) -> None:
        """Drain, hand back what is left, and end."""
        if self._loop is not None and self._stop is not None and self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._stop.set)
            self._thread.join(self.settings.drain_seconds + self.settings.lease_seconds + _JOIN_MARGIN_SECONDS)

    def on_terminate(self) -> None:
        self.on_stop()

    def terminate_job(self, pid: int, signal: int | None = None) -> None:
        """Jobs are bells: there is nothing to terminate. Runs are cancelled through Postgres."""
