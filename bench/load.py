"""Loads that several cases make, each meant to run in a process of its own (``in_own_process``)."""

from __future__ import annotations

import asyncio
import itertools
import json
import time
from collections.abc import Sequence

from bench.http import Connection


def request(agent: str, text: str) -> bytes:
    return json.dumps({"model": agent, "input": text, "background": True}).encode()


async def submit(port: int, bodies: Sequence[bytes], path: str = "/responses", concurrency: int = 16) -> list[str]:
    """Post each body once; the ids of the responses."""
    waiting = iter(bodies)
    ids: list[str] = []

    async def post() -> None:
        async with Connection.open(port) as connection:
            for body in waiting:
                status, answer = await connection.post(path, body)
                if status != 200:
                    raise RuntimeError(f"a submission was answered with {status}: {answer[:300]!r}")
                ids.append(json.loads(answer)["id"])

    await asyncio.gather(*(post() for _ in range(concurrency)))
    return ids


async def keep_posting(port: int, path: str, body: bytes, concurrency: int, seconds: float) -> list[float]:
    """Post the same body over and over on so many connections; how long each answer took."""
    return await _repeat(port, concurrency, seconds, lambda connection: connection.post(path, body))


async def keep_getting(port: int, paths: Sequence[str], concurrency: int, seconds: float) -> list[float]:
    """Get these paths in turn, over and over, on so many connections; how long each answer took."""
    turn = itertools.cycle(paths)
    return await _repeat(port, concurrency, seconds, lambda connection: connection.get(next(turn)))


async def post_by_turns(
    ports: Sequence[int], path: str, body: bytes, concurrency: int, rounds: int, seconds: float
) -> list[list[list[float]]]:
    """Post to each of these ports for so long, in turn, over and over: for each port the times of each round."""
    return await _by_turns(
        [lambda port=port: keep_posting(port, path, body, concurrency, seconds) for port in ports], rounds
    )


async def get_by_turns(
    paths: Sequence[tuple[int, Sequence[str]]], concurrency: int, rounds: int, seconds: float
) -> list[list[list[float]]]:
    """The same for paths to get, each port with its own."""
    return await _by_turns(
        [lambda port=port, own=own: keep_getting(port, own, concurrency, seconds) for port, own in paths], rounds
    )


async def _by_turns(loads, rounds: int) -> list[list[list[float]]]:
    times: list[list[list[float]]] = [[] for _ in loads]
    for round_ in range(rounds):
        places = range(len(loads)) if round_ % 2 else reversed(range(len(loads)))  # nobody is always first
        for place in places:
            times[place].append(await loads[place]())
    return times


async def post_at_pace(port: int, path: str, body: bytes, per_second: float, seconds: float) -> list[float]:
    """Post at fixed times, whether or not earlier answers have come; how long after its time each answer came."""
    loop = asyncio.get_running_loop()
    began = loop.time()

    async def post(at: float) -> float:
        await asyncio.sleep(at - loop.time())
        async with Connection.open(port) as connection:
            status, answer = await connection.post(path, body)
        if status != 200:
            raise RuntimeError(f"a submission was answered with {status}: {answer[:300]!r}")
        return loop.time() - at

    return await asyncio.gather(*(post(began + number / per_second) for number in range(round(seconds * per_second))))


async def _repeat(port: int, concurrency: int, seconds: float, ask) -> list[float]:
    times: list[float] = []
    ends = time.monotonic() + seconds

    async def one_client() -> None:
        async with Connection.open(port) as connection:
            while (began := time.monotonic()) < ends:
                status, answer = await ask(connection)
                times.append(time.monotonic() - began)
                if status != 200:
                    raise RuntimeError(f"answered with {status}: {answer[:300]!r}")

    await asyncio.gather(*(one_client() for _ in range(concurrency)))
    return times
