"""Retention: finished runs are removed when they have been over for long enough.

Whoever leads the sweep sets it going once a minute. It works in small transactions on a connection of its own, rests
between them, and leaves to another process what that one has begun: nothing waits for it, and it can end at any moment.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing

import structlog

from .connections import PINNED_PLAN, Database, Dedicated
from .domain.errors import OutlastError
from .settings import Settings
from .store import pruning
from .store.pruning import Candidate, Expiry, Removed

log = structlog.get_logger()

_LOOK_SECONDS = 60.0
REST = 4.0  # times what a batch took: a slow database is asked for less
_DAY_SECONDS = 86_400.0


async def prune(connection: Dedicated, expiry: Expiry, *, rest: float) -> AsyncGenerator[Removed | None]:
    """Remove what has expired and tell of each batch, resting in between for so many times as long as it took.

    None stands for a batch that was not begun: another process is removing runs at that moment. Raises Unavailable.
    """
    loop = asyncio.get_running_loop()
    after: Candidate | None = None
    while True:
        began = loop.time()
        batch = await connection.run(lambda c, after=after: pruning.prune_next(c, expiry, after))
        took = loop.time() - began
        if batch is None:
            yield None
            continue
        if batch.removed.runs:
            yield batch.removed
        if batch.last is None:
            return
        after = batch.last
        if batch.removed.runs:
            await asyncio.sleep(rest * took)


def expiries(settings: Settings) -> Sequence[Expiry]:
    """What the settings say is to go."""
    unstored = Expiry(settings.unstored_seconds, unstored=True)
    if not settings.retention_days:
        return [unstored]
    return [unstored, Expiry(settings.retention_days * _DAY_SECONDS)]


class Retention:
    def __init__(self, database: Database, settings: Settings) -> None:
        self._database = database
        self._expiries = expiries(settings)
        self._due_at: float | None = None
        self._pruning: asyncio.Task[None] | None = None

    def start_if_due(self) -> None:
        """Prune in the background, unless that goes on already."""
        now = asyncio.get_running_loop().time()
        if self._due_at is None:  # left to chance, because replicas start together
            self._due_at = now + random.uniform(0, _LOOK_SECONDS)
        if now >= self._due_at and (self._pruning is None or self._pruning.done()):
            self._due_at = now + _LOOK_SECONDS
            self._pruning = asyncio.create_task(self._prune_quietly())

    async def close(self) -> None:
        """Stop at once: what is under way is undone."""
        if self._pruning is not None:
            self._pruning.cancel()
            await asyncio.wait({self._pruning})

    async def _prune_quietly(self) -> None:
        try:
            await self.prune_once()
        except OutlastError as error:
            log.warning("retention.missed", error=error.message)
        except Exception:  # the next time is soon
            log.exception("retention.broke")

    async def prune_once(self) -> Removed:
        """Remove all that has expired, unless another process does. Raises Unavailable."""
        total = Removed()
        connection = self._database.dedicated(**PINNED_PLAN)
        try:
            for expiry in self._expiries:
                async with aclosing(prune(connection, expiry, rest=REST)) as batches:
                    async for removed in batches:
                        if removed is None:
                            return total
                        total += removed
        finally:
            await connection.close()
            if total.runs:
                log.info("runs.pruned", runs=total.runs, threads=total.threads, checkpoints=total.checkpoints)
        return total
