"""``outlast prune``: removes finished runs now, and says before how much that is."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from typing import TypeVar

import typer

from outlast.shared.connections import PINNED_PLAN, Connection
from outlast.shared.domain.errors import Invalid, OutlastError
from outlast.shared.domain.runs import RunStatus
from outlast.shared.retention import REST, prune
from outlast.shared.settings import Settings
from outlast.shared.store import schema
from outlast.shared.store.forecast import COUNTED_RUNS, Forecast, forecast
from outlast.shared.store.pruning import Expiry, Removed

from .operators import operators_database, operators_settings, seconds_of
from .terminal import echo

T = TypeVar("T")

_TELL_SECONDS = 1.0
_BUSY_SECONDS = 0.2
_FORECAST_TIMEOUT = "60s"
INTERRUPTED = 130


def run(*, older_than: str | None, status: RunStatus | None, agent: str | None, dry_run: bool, sure: bool) -> int:
    """Returns the exit code. Raises OutlastError."""
    config = operators_settings()
    since, told = _age(config, older_than)
    expiry = Expiry(since, status=status, agent=agent)
    if status is not None and not status.terminal:
        raise Invalid(f"--status {status}: only runs that have ended are pruned.")
    expected = asyncio.run(_with_connection(config, lambda c: forecast(c, expiry), statement_timeout=_FORECAST_TIMEOUT))
    echo(f"finished more than {told} ago: {_described(expected)}", err=not dry_run)
    if dry_run or not expected.runs:
        return 0
    if not sure and not sys.stdin.isatty():
        raise Invalid("Nothing is removed: there is nobody to ask. --yes removes without asking.")
    if not sure and not typer.confirm("Remove them for good?", err=True):
        return 1
    return _remove(config, expiry)


def _age(config: Settings, older_than: str | None) -> tuple[float, str]:
    """Seconds, and how they are told."""
    if older_than is not None:
        return seconds_of(older_than, "--older-than"), older_than
    if not config.retention_days:
        raise Invalid("OUTLAST_RETENTION_DAYS is 0, which keeps runs for ever: say --older-than, as in 90d.")
    return config.retention_days * 86_400, f"{config.retention_days:g}d"


def _remove(config: Settings, expiry: Expiry) -> int:
    tally = _Tally()
    try:
        asyncio.run(_prune(config, expiry, tally))
    except KeyboardInterrupt:
        echo(f"stopped: {tally.told()}. What is left is whole, and the same command goes on.", err=True)
        return INTERRUPTED
    except OutlastError:
        echo(f"not finished: {tally.told()}", err=True)
        raise
    echo(tally.told())
    return 0


class _Tally:
    """What has been removed so far, told once a second."""

    def __init__(self) -> None:
        self.removed = Removed()
        self._told_at = 0.0

    def add(self, removed: Removed | None) -> None:
        self.removed += removed or Removed()
        now = asyncio.get_running_loop().time()
        if now - self._told_at >= _TELL_SECONDS:
            self._told_at = now
            waiting = "" if removed else " (a server is pruning too)"
            echo(f"{self.removed.runs:,} runs{waiting}", err=True)

    def told(self) -> str:
        gone = self.removed
        return (
            f"removed {gone.runs:,} runs, {size(gone.event_bytes)} of events, {gone.threads:,} threads, "
            f"{gone.checkpoints:,} checkpoints"
        )


async def _prune(config: Settings, expiry: Expiry, tally: _Tally) -> None:
    connection = operators_database(config).dedicated(**PINNED_PLAN)
    try:
        async with aclosing(prune(connection, expiry, rest=REST)) as batches:
            async for removed in batches:
                tally.add(removed)
                if removed is None:
                    await asyncio.sleep(_BUSY_SECONDS)
    finally:
        await connection.close()


async def _with_connection(config: Settings, work: Callable[[Connection], Awaitable[T]], **session: str) -> T:
    connection = operators_database(config).dedicated(**PINNED_PLAN, **session)
    try:
        await connection.run(schema.check)
        return await connection.run(work)
    finally:
        await connection.close()


def _described(expected: Forecast) -> str:
    about = "about " if expected.sampled else ""
    runs = f"{COUNTED_RUNS:,} runs or more" if expected.runs == COUNTED_RUNS else f"{expected.runs:,} runs"
    if not expected.runs:
        return runs
    return f"{runs}, {about}{size(expected.event_bytes)} of events, {about}{expected.checkpoints:,} checkpoints"


def size(count: int) -> str:
    """Bytes as people read them."""
    for unit, factor in (("GB", 2**30), ("MB", 2**20), ("KB", 2**10)):
        if count >= factor:
            return f"{count / factor:,.1f} {unit}"
    return f"{count} bytes"
