"""(c) and (f): what one worker stores, and what its runs weigh."""

from __future__ import annotations

import asyncio
import time

from bench import load
from bench.figures import Figure
from bench.processes import CAN_LOOK_INSIDE, in_own_process, memory
from bench.stack import PORTS, Stack

RUNS = 100
WORDS = 1000
SLEEPING = 1000
_STORED = "SELECT sum(last_seq + 1) FROM run_heads"


async def store(stack: Stack) -> list[Figure]:
    """Events a second that one worker stores, of 100 runs of 1,000 words each that emit as fast as they may."""
    async with stack.api(PORTS[0]), stack.worker():
        await in_own_process(load.submit, PORTS[0], [load.request("burst", "10")] * 10)
        await stack.until_idle()
        before, began = await stack.number(_STORED), time.monotonic()
        await in_own_process(load.submit, PORTS[0], [load.request("burst", str(WORDS))] * RUNS)
        await stack.until_idle()
        seconds = time.monotonic() - began
        events = await stack.number(_STORED) - before
    return [Figure("events stored by one worker", events / seconds, "/s", at_least=10_000)]


async def sleeping(stack: Stack) -> list[Figure]:
    """Memory of 1,000 runs that have said a word and wait: the worker's with its children, less what it has idle.

    Linux only. The idle figure is taken after a few runs, when everything is loaded.
    """
    if not CAN_LOOK_INSIDE:
        return []
    async with stack.api(PORTS[0]), stack.worker() as pid:
        await in_own_process(load.submit, PORTS[0], [load.request("burst", "10")] * 10)
        await stack.until_idle()
        idle = await _settled_memory(pid)
        await in_own_process(load.submit, PORTS[0], [load.request("sleep", "600")] * SLEEPING)
        await stack.until_number("SELECT count(*) FROM run_heads WHERE last_seq >= 5 AND NOT closed", SLEEPING)
        full = await _settled_memory(pid)
    return [
        Figure("memory of an idle worker", idle / 2**20, "MB"),
        Figure("memory of a sleeping run", (full - idle) / SLEEPING / 1024, "KB", at_most=60),
    ]


async def _settled_memory(pid: int) -> int:
    """When it has stopped growing."""
    last, now = 0, memory(pid)
    while abs(now - last) > 256 * 1024:
        await asyncio.sleep(0.5)
        last, now = now, memory(pid)
    return now
