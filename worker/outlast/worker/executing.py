"""Whose code is executing: the one thing that is known of a process that has died, or stands still, without a word.

A process runs many agents on one loop, but one at a time. Each step of a task of an agent, and of the tasks it started,
writes its attempt into memory that the parent shares, and takes it out afterwards. So does what an agent has done in
the loop's threads, where several may be at work at once; threads that an agent starts by itself leave no mark.
"""

from __future__ import annotations

import asyncio
import itertools
import struct
import threading
from collections.abc import Callable, Coroutine, Generator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from contextvars import ContextVar
from typing import Any, TypeVar
from uuid import UUID

import structlog

from outlast.agent import AgentError
from outlast.shared.domain.runs import Lease

T = TypeVar("T")

log = structlog.get_logger()

_MARK_BYTES = 20  # the run's id and the number of its attempt
_NOBODY = bytes(_MARK_BYTES)
_THREAD = struct.Struct(f"<q{_MARK_BYTES}s")  # the thread's number in the system, and its mark
_THREADS = 128
MEMORY_BYTES = _MARK_BYTES + _THREADS * _THREAD.size

_PASSING = (Exception, asyncio.CancelledError)
"""What a task raises without harm to its loop, and what an attempt answers."""

_mark: ContextVar[bytes | None] = ContextVar("executing", default=None)


def execute_as(lease: Lease) -> None:
    """What this context does from now on, and all tasks it starts, is done for this attempt."""
    _mark.set(_bytes(lease))


def for_attempt() -> bool:
    """Whether what this context does is done for an attempt."""
    return _mark.get() is not None


class Marks:
    """The memory, which has ``MEMORY_BYTES``. The child writes it, the parent reads it, also afterwards."""

    def __init__(self, memory: Any) -> None:
        self._memory = memoryview(memory).cast("B")

    @property
    def on_loop(self) -> Lease | None:
        """Whose step the loop is in, or was when the process died."""
        return _lease(bytes(self._memory[:_MARK_BYTES]))

    @property
    def in_threads(self) -> dict[int, Lease]:
        """What is done in threads, by their numbers in the system."""
        places = _THREAD.iter_unpack(self._memory[_MARK_BYTES:])
        return {number: lease for number, mark in places if (lease := _lease(mark))}

    def mark_steps(self, loop: asyncio.AbstractEventLoop) -> None:
        """Have every step of a task of an attempt leave its mark."""
        view = self._memory[:_MARK_BYTES]

        def create(loop: asyncio.AbstractEventLoop, coroutine: Any, **options: Any) -> asyncio.Task[Any]:
            context = options.get("context")
            mark = _mark.get() if context is None else context.get(_mark)
            steps = coroutine if mark is None else _Marked(coroutine, mark, view)
            return asyncio.Task(steps, loop=loop, **options)

        loop.set_task_factory(create)

    def mark_thread(self, place: int, mark: bytes = _NOBODY) -> None:
        if place < _THREADS:
            number = 0 if mark is _NOBODY else threading.get_native_id()
            _THREAD.pack_into(self._memory, _MARK_BYTES + place * _THREAD.size, number, mark)


class AgentThreads(ThreadPoolExecutor):
    """The threads of a loop: what an agent does by `asyncio.to_thread`, and the nodes of a graph that are not async.

    A thread cannot be ended from outside. It is known whose work is still under way when its attempt is over.
    """

    def __init__(self, threads: int, marks: Marks) -> None:
        super().__init__(threads, thread_name_prefix="agent")
        self._marks = marks
        self._places = itertools.count()
        self._local = threading.local()
        self._work: dict[bytes, set[Future[Any]]] = {}

    def submit(self, fn: Callable[..., T], /, *args: Any, **kwargs: Any) -> Future[T]:
        mark = _mark.get()
        if mark is None:
            return super().submit(fn, *args, **kwargs)
        future = super().submit(self._marked, mark, fn, *args, **kwargs)
        work = self._work.setdefault(mark, set())
        work.add(future)
        future.add_done_callback(work.discard)
        return future

    def busy(self, lease: Lease) -> int:
        """How much work of this attempt is under way."""
        return len(self._work.get(_bytes(lease), ()))

    def forget(self, lease: Lease) -> None:
        self._work.pop(_bytes(lease), None)

    def _marked(self, mark: bytes, fn: Callable[..., T], *args: Any, **kwargs: Any) -> T:
        if not hasattr(self._local, "place"):
            self._local.place = next(self._places)
        self._marks.mark_thread(self._local.place, mark)
        try:
            return fn(*args, **kwargs)
        finally:
            self._marks.mark_thread(self._local.place)


class _Marked(Coroutine[Any, Any, Any]):
    """A task's steps. What would end the loop, and all runs on it (``sys.exit()``), ends its own run alone."""

    __slots__ = ("_coroutine", "_mark", "_view")

    def __init__(self, coroutine: Coroutine[Any, Any, Any], mark: bytes, view: memoryview) -> None:
        self._coroutine = coroutine
        self._mark = mark
        self._view = view

    def send(self, value: Any) -> Any:
        return self._step(self._coroutine.send, value)

    def throw(self, *given: Any) -> Any:
        return self._step(self._coroutine.throw, *given)

    def _step(self, advance: Callable[..., Any], *given: Any) -> Any:
        """The mark stays behind when something leaves that ends the process: it tells whose doing that is.

        A step may turn the loop itself, as ``nest_asyncio`` does: afterwards it is still its own.
        """
        before = bytes(self._view)
        self._view[:] = self._mark
        try:
            result = advance(*given)
        except _PASSING:
            self._view[:] = before
            raise
        except BaseException as error:
            ours = _exited(error)
            self._view[:] = before
            raise ours from error
        self._view[:] = before
        return result

    def close(self) -> None:
        self._coroutine.close()

    def __await__(self) -> Generator[Any, Any, Any]:
        return self._coroutine.__await__()

    def __getattr__(self, name: str) -> Any:
        """What debuggers and ``asyncio.all_tasks()`` look at: the frame, the code, the name."""
        return getattr(self._coroutine, name)


def _exited(error: BaseException) -> AgentError:
    with suppress(Exception):  # there may be no memory left to say it
        log.error("agent.failed", exc_info=error)
    return AgentError(f"The agent failed with {type(error).__name__}.")


def _bytes(lease: Lease) -> bytes:
    return lease.run_id.bytes + lease.attempt.to_bytes(4, "big")


def _lease(mark: bytes) -> Lease | None:
    return None if mark == _NOBODY else Lease(UUID(bytes=mark[:16]), int.from_bytes(mark[16:], "big"))
