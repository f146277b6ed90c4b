"""Waiting for conditions, with deadlines. No test sleeps for a fixed time."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

T = TypeVar("T")

DEADLINE_SECONDS = 20.0


async def until(condition: Callable[[], Awaitable[T | None]], *, seconds: float = DEADLINE_SECONDS) -> T:
    """The first true value of the condition. Raises TimeoutError when there is none in time."""
    deadline = time.monotonic() + seconds
    while not (value := await condition()):
        if time.monotonic() > deadline:
            raise TimeoutError(f"never true within {seconds} s")
        await asyncio.sleep(0.01)
    return value


def until_sync(condition: Callable[[], T], *, seconds: float = DEADLINE_SECONDS) -> T:
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        if time.monotonic() > deadline:
            raise TimeoutError(f"never true within {seconds} s")
        time.sleep(0.01)
    return value
