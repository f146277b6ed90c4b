"""(e) Many open streams on one API process."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass

from bench import load
from bench.figures import Figure, percentiles
from bench.http import Delays, Stream
from bench.processes import CAN_LOOK_INSIDE, in_own_process, memory, processor_seconds
from bench.stack import PORTS, Stack

RUNS = 200
STREAMS = (1000, 5000)
SETTLE_SECONDS = 2.0
SECONDS = 5.0
OPENING_AT_ONCE = 50
LIFE_SECONDS = 600  # of the runs: longer than anything takes here; they end with their worker


@dataclass(frozen=True, slots=True)
class Level:
    """What was seen with so many streams open. ``memory`` in bytes a stream, ``share`` of one core."""

    streams: int
    memory: float
    share: float
    delays: list[float]


async def hold_streams(stack: Stack) -> list[Figure]:
    """1,000, then 5,000 streams on an API process of their own, spread over 200 runs that say a word a second.

    Memory is the process's, less what it has after a first 200 streams have come and gone (Linux only). Delays and its
    share of a core are those of five seconds in which every stream got a word a second.
    """
    if not CAN_LOOK_INSIDE:
        return []
    async with stack.api(PORTS[0]), stack.worker(), stack.api(PORTS[1]) as pid:
        body = load.request("tick", f"1 {LIFE_SECONDS}")
        runs = await in_own_process(load.submit, PORTS[0], [body] * RUNS)
        levels = await in_own_process(_open_and_watch, runs, pid)
    return [figure for level in levels for figure in _figures(level)]


def _figures(level: Level) -> list[Figure]:
    count = f"{level.streams:,} streams"
    most = level.streams == max(STREAMS)
    return [
        Figure(f"memory of a stream, {count}", level.memory / 1024, "KB", at_most=30 if most else None),
        Figure(f"share of a core, {count}", 100 * level.share, "%"),
        Figure(f"words delivered, {count}", len(level.delays) / SECONDS, "/s", at_least=0.97 * level.streams),
        *percentiles(f"word to client, {count}", level.delays),
    ]


async def _open_and_watch(runs: list[str], pid: int) -> list[Level]:
    delays = Delays()
    streams: list[Stream] = []
    await _open(streams, runs, len(runs), delays)
    for stream in streams:
        stream.close()
    streams.clear()
    await asyncio.sleep(SETTLE_SECONDS)
    before = memory(pid)
    return [await _level(streams, runs, count, delays, pid, before) for count in STREAMS]


async def _level(streams: list[Stream], runs: list[str], count: int, delays: Delays, pid: int, before: int) -> Level:
    await _open(streams, runs, count, delays)
    await asyncio.sleep(SETTLE_SECONDS)
    computed, began = processor_seconds(pid), time.monotonic()
    delays.seconds, delays.counting = [], True
    await asyncio.sleep(SECONDS)
    delays.counting = False
    share = (processor_seconds(pid) - computed) / (time.monotonic() - began)
    return Level(count, (memory(pid) - before) / count, share, delays.seconds)


async def _open(streams: list[Stream], runs: list[str], count: int, delays: Delays) -> None:
    """Open more, until there are so many, a few at a time; returns when all have been answered."""
    gate = asyncio.Semaphore(OPENING_AT_ONCE)

    async def one(number: int) -> None:
        async with gate:
            path = f"/responses/{runs[number % len(runs)]}?stream=true"
            stream = await Stream.open(PORTS[1], path, delays.see)
            await stream.began.wait()
            streams.append(stream)

    await asyncio.gather(*(one(number) for number in range(len(streams), count)))
