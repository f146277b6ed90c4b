"""Agents that would end their process: ``sys.exit()`` and the like end their own run alone."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from contextvars import copy_context
from typing import Any

import pytest
from structlog.testing import capture_logs

from outlast.agent import AgentError
from outlast.shared.domain.ids import new_uuid
from outlast.shared.domain.runs import Lease
from outlast.worker.executing import MEMORY_BYTES, AgentThreads, Marks, execute_as
from outlast.worker.pool.child import Loop


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


@pytest.mark.parametrize("error", [SystemExit, KeyboardInterrupt, OddError])
@pytest.mark.parametrize("agent", [in_itself, in_a_task, in_a_group, in_a_thread, after_a_wait])
async def test_it_fails_and_the_loop_goes_on(agent: Callable[[Any], Any], error: type[BaseException]) -> None:
    loop, marks = asyncio.get_running_loop(), Marks(bytearray(MEMORY_BYTES))
    threads = AgentThreads(1, marks)
    loop.set_default_executor(threads)
    marks.mark_steps(loop)
    context = copy_context()
    context.run(execute_as, Lease(new_uuid(), 1))
    try:
        with pytest.raises(AgentError, match=f"The agent failed with {error.__name__}."):
            await asyncio.create_task(agent(error), context=context)
    finally:
        loop.set_task_factory(None)
    assert marks.on_loop is None


def test_a_callback_of_the_loop_leaves_it_running() -> None:
    async def main() -> str:
        asyncio.get_running_loop().call_soon(sys.exit)
        await asyncio.sleep(0)
        return "went on"

    with capture_logs() as logs, asyncio.Runner(loop_factory=Loop) as runner:
        assert runner.run(main()) == "went on"
    assert [entry["event"] for entry in logs] == ["callback.exited"]
