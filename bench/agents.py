"""Agents without a model, for measuring what is around them. Their input is numbers, in words."""

from __future__ import annotations

import asyncio
import random
import time

from outlast.agent import Context, Request


async def burst(request: Request, _context: Context):
    """``COUNT`` words, as fast as they are taken."""
    for _ in range(int(request.text)):
        yield "a word of an answer "


async def tick(request: Request, _context: Context):
    """``SECONDS COUNT``: the time in nanoseconds, so often, after a random part of the first interval."""
    interval, count = request.text.split()
    next_at = time.monotonic() + float(interval) * random.random()
    for _ in range(int(count)):
        await asyncio.sleep(next_at - time.monotonic())
        next_at += float(interval)
        yield f"@{time.monotonic_ns()};"


async def sleep(request: Request, _context: Context):
    """``SECONDS``: a word, then nothing for so long."""
    yield "waiting"
    await asyncio.sleep(float(request.text))
