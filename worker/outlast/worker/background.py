"""Tasks that are waited for, or looked at."""

from __future__ import annotations

import asyncio
import io
from collections.abc import Coroutine
from typing import Any


def stack_of(task: asyncio.Task[Any]) -> str:
    """Where the code is: no values of variables."""
    written = io.StringIO()
    task.print_stack(file=written)
    return written.getvalue()


async def first_of(*waits: Coroutine[Any, Any, object]) -> None:
    """Until one of them is over; the others are cancelled."""
    tasks = [asyncio.ensure_future(wait) for wait in waits]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
