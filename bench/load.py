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
