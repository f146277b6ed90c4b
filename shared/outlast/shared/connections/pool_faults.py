"""What the driver's pool does not do by itself."""

from __future__ import annotations

import asyncio
from collections.abc import Generator
from contextlib import contextmanager

from psycopg_pool import AsyncConnectionPool

from .connection import Connection


@contextmanager
def heeding_cancels() -> Generator[None]:
    """A cancel that comes just when the pool has a connection is lost in it before Python 3.12: its asyncio.wait_for
    then returns as if there had been none. A task that is to stop would go on for ever.
    """
    task = asyncio.current_task()
    before = task.cancelling() if task else 0  # a task that tidies up after a cancel is not cancelled again
    try:
        yield
    finally:
        if task and task.cancelling() > before:
            raise asyncio.CancelledError


async def try_again(pool: AsyncConnectionPool[Connection]) -> None:
    """The pool has given a connection up; it makes another one only when it is asked, and they have asked already."""
    if pool.get_stats().get("requests_waiting"):
        await pool.check()
