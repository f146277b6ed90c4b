"""A Celery pool without tasks: a message wakes the dispatcher, and is acknowledged when its claim has committed.

Celery's consumer lives in the main thread; the dispatcher has a loop in a thread of its own, and agents run in neither:
they have processes of their own.
"""

from __future__ import annotations

import asyncio
import signal
import threading
import time
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from contextlib import suppress
from typing import Any, ClassVar

import structlog
import uvloop
from celery.concurrency.base import BasePool

from outlast.shared import fitness
from outlast.shared.background import Background
from outlast.shared.connections import Database
from outlast.shared.domain.errors import OutlastError, Unavailable
from outlast.shared.doorbell import Doorbell
from outlast.shared.settings import Settings, SettingsError
from outlast.worker.background import first_of
from outlast.worker.dispatcher import Dispatcher
from outlast.worker.health import answering

from .children import Children
from .condition import Condition

log = structlog.get_logger()

_CONNECTIONS = 3  # of the dispatcher's pool: a claim, a beat and a release at once
_JOIN_MARGIN_SECONDS = 15.0


class RunPool(BasePool):
    """Celery makes the pool from its class; `serving` gives it the settings."""

    settings: ClassVar[Settings]
    on_refusal: ClassVar[Callable[[str], None]]
    exit_code = 0
    """What the worker's process is to end with."""
    body_can_be_buffer = True
    signal_safe = False
    task_join_will_block = False
    _loop: asyncio.AbstractEventLoop | None = None
    _stop: asyncio.Event | None = None
    _dispatcher: Dispatcher | None = None
    _asked_to_stop = False
    """A signal may come at any time: before there is a loop, too."""

    @classmethod
    def serving(cls, settings: Settings, on_refusal: Callable[[str], None]) -> type[RunPool]:
        return type(cls.__name__, (cls,), {"settings": settings, "on_refusal": staticmethod(on_refusal)})

    def on_start(self) -> None:
        self._started: Future[Dispatcher | None] = Future()
        self._thread = threading.Thread(target=self._run, name="dispatcher")
        self._thread.start()
        try:
            self._dispatcher = self._started.result()
        except OutlastError as error:
            log.error("worker.cannot_start", error=error.message)
            if isinstance(error, SettingsError):
                type(self).on_refusal(error.message)
            raise SystemExit(1) from None  # what Celery ends by without a traceback
        if self._dispatcher is None:
            raise SystemExit(self.exit_code)

    def _run(self) -> None:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(self._serve())

    async def _serve(self) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        if self._asked_to_stop:
            self._stop.set()
        settings = self.settings
        database = Database.of(settings, application="outlast worker parent", pin_plan=True)
        doorbell = Doorbell(settings.required_redis_url(), settings.db_schema)
        try:
            with suppress(Unavailable):  # the children wait for it, and meanwhile say what is wrong with their agents
                await fitness.check_sessions(database)
            async with database.pooled(max_connections=_CONNECTIONS):
                doorbell.start()
                await self._dispatch(Dispatcher(database, settings, doorbell))
        except Exception as error:
            if self._started.done():
                raise
            self._started.set_exception(error)
        else:
            if not self._started.done():  # it was stopped before
                self._started.set_result(None)
        finally:
            doorbell.stop()

    async def _dispatch(self, dispatcher: Dispatcher) -> None:
        assert self._stop is not None
        children = Children(self.settings, dispatcher)
        condition = Condition(
            lambda: children.ready, lambda: dispatcher.missing_since, lease_seconds=self.settings.lease_seconds
        )
        async with answering(self.settings.health_port, {"/health": condition.health, "/ready": condition.readiness}):
            if self._stop.is_set() or not await _unless_set(self._stop, children.start()):
                await children.stop()
                return
            background = Background()
            condition.keeping = keeping = background.start(dispatcher.run_forever())
            ending = background.start(self._end_when_due(dispatcher, keeping))
            self._started.set_result(dispatcher)
            await self._stop.wait()
            condition.draining = True
            ending.cancel()
            await dispatcher.drain()
            await children.stop()
            keeping.cancel()
            await asyncio.wait({keeping})
            await dispatcher.close()

    async def _end_when_due(self, dispatcher: Dispatcher, keeping: asyncio.Task[None]) -> None:
        """When an operator asks, or when the beat has ended: nobody would renew what this worker claims.

        By the signal that anybody else would send. To the main thread: Celery's consumer may be waiting there.
        """
        await first_of(dispatcher.drain_asked.wait(), asyncio.wait({keeping}))
        if keeping.done():
            self.exit_code = 1
            log.error("worker.broke", exc_info=keeping.exception())
        else:
            log.info("worker.drain_asked")
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGTERM)

    @property
    def num_processes(self) -> int:
        """What Celery may reserve; claims are bounded by free slots, and a bell is done as soon as its claim is."""
        return self.settings.worker_children * self.settings.concurrency

    def on_apply(  # pyright: ignore[reportIncompatibleMethodOverride] — the stubs leave out what Celery passes
        self,
        target: Any,
        args: Any = None,
        kwargs: Any = None,
        callback: Callable[..., Any] | None = None,
        accept_callback: Callable[..., Any] | None = None,
        **_: Any,
    ) -> Future[None]:
        assert self._loop is not None and self._stop is not None and self._dispatcher is not None
        if self._stop.is_set() or self._loop.is_closed():
            return Future()  # not acknowledged: the message goes back to the broker when the connection closes

        def rung(future: Future[None]) -> None:
            if future.cancelled():  # by the end of the loop: as above
                return
            if error := future.exception():
                log.warning("bell.unanswered", error=str(error))  # the beat looks for work by itself
            if accept_callback is not None:
                accept_callback(self._thread.native_id, time.monotonic())  # acknowledges the message
            if callback is not None:
                callback((0, None, 0.0))

        future = asyncio.run_coroutine_threadsafe(self._dispatcher.ring(), self._loop)
        future.add_done_callback(rung)
        return future

    def drain(self) -> None:
        """Take no more runs, and let go of those that are here; asked again, at once."""
        again, self._asked_to_stop = self._asked_to_stop, True
        if again and self._dispatcher is not None:
            self._call(self._dispatcher.hurry)
        elif self._stop is not None:
            self._call(self._stop.set)

    def on_stop(self) -> None:
        """Drain, hand back what is left, and end the children."""
        if self._stop is not None:
            self._call(self._stop.set)
            self._thread.join(self.settings.drain_seconds + 3 * self.settings.lease_seconds + _JOIN_MARGIN_SECONDS)

    def _call(self, function: Callable[[], None]) -> None:
        """In the dispatcher's loop, while it turns."""
        with suppress(RuntimeError):  # it is closed
            if self._loop is not None:
                self._loop.call_soon_threadsafe(function)

    def on_terminate(self) -> None:
        self.on_stop()

    def terminate_job(self, pid: int, signal: int | None = None) -> None:
        """Jobs are bells: there is nothing to terminate. Runs are cancelled through Postgres."""


async def _unless_set(stop: asyncio.Event, starting: Coroutine[Any, Any, None]) -> bool:
    """Whether it came to its end; it is cancelled when ``stop`` is set before."""
    task = asyncio.create_task(starting)
    await first_of(stop.wait(), asyncio.wait({task}))
    if task.done():
        task.result()
        return True
    task.cancel()
    await asyncio.wait({task})
    return False
