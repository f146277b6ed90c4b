"""Agents that real workers load in the tests."""

from __future__ import annotations

import asyncio
import os

from outlast.agent import Context, Request, ToolCall, ToolResult

PACE_SECONDS = 0.02


async def count(request: Request, context: Context):
    """Counts to the number it is asked for, slowly enough to be interrupted."""
    yield ToolCall("prepare", {"attempt": context.attempt}, call_id=f"call_{context.attempt}")
    yield ToolResult(f"call_{context.attempt}", "ready")
    for number in range(int(request.text) if request.text.isdecimal() else 3):
        await asyncio.sleep(PACE_SECONDS)
        yield f"{number} "


async def pid(_request: Request, _context: Context):
    yield str(os.getpid())
