"""Event loops under which something is to work alike."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Coroutine
from typing import Any, TypeVar

import uvloop

T = TypeVar("T")

LOOPS = {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}


def run_on(loop: str, work: Coroutine[Any, Any, T]) -> tuple[T, list[str]]:
    """What the work returns, and what its loop has had to complain of, at the latest when garbage was collected."""
    complaints: list[str] = []

    async def watched() -> T:
        asyncio.get_running_loop().set_exception_handler(lambda _, told: complaints.append(str(told)))
        return await work

    with asyncio.Runner(loop_factory=LOOPS[loop]) as runner:
        result = runner.run(watched())
        gc.collect()
    return result, complaints
