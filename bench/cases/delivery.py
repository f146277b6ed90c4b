"""(b) and (d): from an agent to a client of another API process."""

from __future__ import annotations

import asyncio
import json
import time

from bench import load
from bench.figures import Figure, percentiles
from bench.http import Connection, Delays, Stream
from bench.processes import in_own_process
from bench.stack import PORTS, Stack

RUNS = 100
PER_SECOND = 20
RAMP_SECONDS = 2.0
SETTLE_SECONDS = 1.0
SECONDS = 6.0
FIRST_WORDS = 100
PAUSE_SECONDS = 0.03  # the server is idle when the next request comes


async def deliver(stack: Stack) -> list[Figure]:
    """The age of a word when a client sees it: 100 runs of 20 words a second each, every one watched by one client.

    Runs are submitted to one API process and watched through the other. Counted for six seconds after all have begun.
    """
    async with stack.apis(), stack.worker():
        seconds = await in_own_process(_watch_words)
    return [
        Figure("words delivered", len(seconds) / SECONDS, "/s", at_least=0.97 * RUNS * PER_SECOND),
        *percentiles("word to client, 2,000 words/s", seconds, p50=5, p99=25),
    ]


async def _watch_words() -> list[float]:
    delays = Delays()
    ticks = int((RAMP_SECONDS + SETTLE_SECONDS + SECONDS + 1) * PER_SECOND)
    body = load.request("tick", f"{1 / PER_SECOND} {ticks}")
    streams: list[Stream] = []
    async with Connection.open(PORTS[0]) as connection:
        for _ in range(RUNS):
            _, answer = await connection.post("/responses", body)
            streams.append(await Stream.open(PORTS[1], _stream_path(answer), delays.see))
            await asyncio.sleep(RAMP_SECONDS / RUNS)
    await asyncio.sleep(SETTLE_SECONDS)
    delays.counting = True
    await asyncio.sleep(SECONDS)
    delays.counting = False
    for stream in streams:
        stream.close()
    return delays.seconds


async def first_word(stack: Stack) -> list[Figure]:
    """On an idle server: from sending a request to its first word, streamed from the other API process; 100 times."""
    async with stack.apis(), stack.worker():
        await in_own_process(_first_words, 10)
        seconds = await in_own_process(_first_words, FIRST_WORDS)
    return percentiles("submit to first word, idle", seconds, p50=25)


async def _first_words(count: int) -> list[float]:
    seconds: list[float] = []
    body = load.request("burst", "1")
    async with Connection.open(PORTS[0]) as connection:
        for _ in range(count):
            began = time.monotonic()
            _, answer = await connection.post("/responses", body)
            seconds.append(await _first_word(answer) - began)
            await asyncio.sleep(PAUSE_SECONDS)
    return seconds


async def _first_word(answer: bytes) -> float:
    seen: list[float] = []

    def see(piece: bytes) -> None:
        if not seen and b"response.output_text.delta" in piece:
            seen.append(time.monotonic())

    stream = await Stream.open(PORTS[1], _stream_path(answer), see)
    await stream.ended.wait()
    stream.close()
    return seen[0]


def _stream_path(answer: bytes) -> str:
    return f"/responses/{json.loads(answer)['id']}?stream=true"
