"""Agents without a model, for measuring what is around them."""

from __future__ import annotations

import asyncio
import time

from outlast.agent import Context, Request


async def burst(request: Request, _context: Context):
    """As many words as it is asked for, as fast as they are taken."""
    for _ in range(int(request.text) if request.text.isdecimal() else 18):
        yield "a word of an answer "


async def tick(request: Request, _context: Context):
    """The time, twenty times a second."""
    for _ in range(int(request.text)):
        await asyncio.sleep(0.05)
        yield repr(time.time())
