"""Agents that would end their process: ``sys.exit()`` and the like end their own run alone."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Generator
from contextlib import contextmanager
from contextvars import Context, copy_context
from typing import Any

import pytest
from structlog.testing import capture_logs

from outlast.agent import AgentError
from outlast.shared.domain.ids import new_uuid
from outlast.shared.domain.runs import Lease
from outlast.worker.executing import MEMORY_BYTES, AgentThreads, Marks, execute_as
from outlast.worker.loops import AsyncioLoop, UvLoop

LEASE = Lease(new_uuid(), 1)
BOTH = pytest.mark.parametrize("loop", [UvLoop, AsyncioLoop])


class OddError(BaseException):
    pass


def raising(error: type[BaseException]) -> Any:
    raise error


async def in_itself(error: type[BaseException]) -> None:
    raising(error)


async def in_a_task(error: type[BaseException]) -> None:
    await asyncio.create_task(in_itself(error))


async def in_a_group(error: type[BaseException]) -> None:
    await asyncio.gather(in_itself(error), asyncio.Event().wait())


async def in_a_thread(error: type[BaseException]) -> None:
    await asyncio.to_thread(raising, error)


async def after_a_wait(error: type[BaseException]) -> None:
    try:
        await asyncio.sleep(0)
    finally:
        sys.exit() if error is SystemExit else raising(error)


@contextmanager
def marked(marks: Marks) -> Generator[Context]:
    """A context whose tasks are an attempt's."""
    loop = asyncio.get_running_loop()
    threads = AgentThreads(1, marks)
    loop.set_default_executor(threads)
    marks.mark_steps(loop)
    context = copy_context()
    context.run(execute_as, LEASE)
    try:
        yield context
    finally:
        loop.set_task_factory(None)


@pytest.mark.parametrize("error", [SystemExit, KeyboardInterrupt, GeneratorExit, OddError])
@pytest.mark.parametrize("agent", [in_itself, in_a_task, in_a_group, in_a_thread, after_a_wait])
async def test_it_fails_and_the_loop_goes_on(agent: Callable[[Any], Any], error: type[BaseException]) -> None:
    marks = Marks(bytearray(MEMORY_BYTES))
    with marked(marks) as context, pytest.raises(AgentError, match=f"The agent failed with {error.__name__}."):
        await asyncio.create_task(agent(error), context=context)
    assert marks.on_loop is None


async def test_what_ends_the_process_all_the_same_leaves_its_mark(monkeypatch: pytest.MonkeyPatch) -> None:
    marks = Marks(bytearray(MEMORY_BYTES))
    monkeypatch.setattr("outlast.worker.executing._exited", raising)
    with marked(marks) as context:
        task = asyncio.create_task(in_itself(OddError), context=context)
        await asyncio.wait([task])
    assert type(task.exception()) is OddError
    assert marks.on_loop == LEASE


async def test_a_step_that_turns_the_loop_keeps_its_mark() -> None:
    marks = Marks(bytearray(MEMORY_BYTES))

    async def other() -> None:
        while True:
            await asyncio.sleep(0)

    async def outer() -> Lease | None:
        task: asyncio.Task[None] = asyncio.create_task(other())
        task.get_coro().send(None)
        task.cancel()
        return marks.on_loop

    with marked(marks) as context:
        assert await asyncio.create_task(outer(), context=context) == LEASE
    assert marks.on_loop is None


@BOTH
def test_a_callback_of_the_loop_leaves_it_running(loop: Callable[[], asyncio.AbstractEventLoop]) -> None:
    async def main() -> str:
        asyncio.get_running_loop().call_soon(sys.exit)
        await asyncio.sleep(0)
        return "went on"

    with capture_logs() as logs, asyncio.Runner(loop_factory=loop) as runner:
        assert runner.run(main()) == "went on"
    assert [entry["event"] for entry in logs] == ["callback.exited"]


@BOTH
def test_an_agent_does_not_stop_the_loop(loop: Callable[[], asyncio.AbstractEventLoop]) -> None:
    async def agent() -> None:
        asyncio.get_running_loop().stop()

    async def main() -> str:
        refused = pytest.raises(AgentError, match="may not stop the event loop")
        with marked(Marks(bytearray(MEMORY_BYTES))) as context, refused:
            await asyncio.create_task(agent(), context=context)
        return "went on"

    with asyncio.Runner(loop_factory=loop) as runner:
        assert runner.run(main()) == "went on"
