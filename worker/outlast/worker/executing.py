"""Which attempt's code is executing: the one thing that is known of a process that died without a word.

A process runs many agents on one loop, but one at a time. Each step of a task of an agent, and of the tasks it started,
writes its attempt into memory that the parent shares, and takes it out afterwards. What the parent finds there when the
process is dead was executing when it died. Code in threads leaves no mark.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Generator
from contextvars import ContextVar
from typing import Any
from uuid import UUID

from outlast.shared.domain.runs import Lease

MARK_BYTES = 20  # the run's id and the number of its attempt
_NOBODY = bytes(MARK_BYTES)

_mark: ContextVar[bytes | None] = ContextVar("executing", default=None)


def execute_as(lease: Lease) -> None:
    """What this context does from now on, and all tasks it starts, is done for this attempt."""
    _mark.set(lease.run_id.bytes + lease.attempt.to_bytes(4, "big"))


def executing(memory: Any) -> Lease | None:
    """The attempt that this memory was left with."""
    mark = bytes(memory)
    return None if mark == _NOBODY else Lease(UUID(bytes=mark[:16]), int.from_bytes(mark[16:], "big"))


def mark_steps(loop: asyncio.AbstractEventLoop, memory: Any) -> None:
    """Have every step of a task of an attempt leave its mark in this memory, which has ``MARK_BYTES``."""
    view = memoryview(memory).cast("B")

    def create(loop: asyncio.AbstractEventLoop, coroutine: Any, **options: Any) -> asyncio.Task[Any]:
        context = options.get("context")
        mark = _mark.get() if context is None else context.get(_mark)
        steps = coroutine if mark is None else _Marked(coroutine, mark, view)
        return asyncio.Task(steps, loop=loop, **options)

    loop.set_task_factory(create)


class _Marked(Coroutine[Any, Any, Any]):
    __slots__ = ("_coroutine", "_mark", "_view")

    def __init__(self, coroutine: Coroutine[Any, Any, Any], mark: bytes, view: memoryview) -> None:
        self._coroutine = coroutine
        self._mark = mark
        self._view = view

    def send(self, value: Any) -> Any:
        self._view[:] = self._mark
        try:
            return self._coroutine.send(value)
        finally:
            self._view[:] = _NOBODY

    def throw(self, *error: Any) -> Any:
        self._view[:] = self._mark
        try:
            return self._coroutine.throw(*error)
        finally:
            self._view[:] = _NOBODY

    def close(self) -> None:
        self._coroutine.close()

    def __await__(self) -> Generator[Any, Any, Any]:
        return self._coroutine.__await__()

    def __getattr__(self, name: str) -> Any:
        """What debuggers and ``asyncio.all_tasks()`` look at: the frame, the code, the name."""
        return getattr(self._coroutine, name)
