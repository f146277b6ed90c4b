"""``outlast runs cancel`` and ``retry``: what they do and what they tell. Each function returns the exit code."""

from __future__ import annotations

import asyncio
import importlib
import sys
import time
from collections import Counter
from collections.abc import Sequence
from uuid import UUID

import typer

from outlast.shared.connections import Dedicated
from outlast.shared.domain.ids import response_id
from outlast.shared.domain.operating import RetryRefusal, RunFilter, RunState
from outlast.shared.domain.runs import RunStatus
from outlast.shared.store import operating, steering
from outlast.shared.store.operating import Match

from . import drawing
from .operators import operators_settings
from .terminal import echo, echo_line, echo_progress

_MOST = 1_000_000  # runs of one command
_BATCH = 200  # runs that are asked in one statement
_PASSES = 5  # over those that somebody else was busy with
_PASS_PAUSE_SECONDS = 0.3
_END_SECONDS = 8.0  # the grace of an agent, and some more
_LOOK_SECONDS = 0.2


async def cancel(connection: Dedicated, run_ids: Sequence[UUID]) -> int:
    """1 when one of them is unknown or had ended otherwise."""
    for run_id in run_ids:
        await connection.run(lambda c: steering.request_cancel(c, run_id))
    ended = await _until_ended(connection, run_ids)
    good = True
    for run_id in run_ids:
        run = ended.get(run_id)
        if run is None:
            _complain(run_id, RetryRefusal.NOT_FOUND.value)
        elif run.status is RunStatus.CANCELLED:
            echo(f"{response_id(run_id)} is cancelled")
        elif not run.status.terminal:
            echo(f"{response_id(run_id)} is being cancelled")
        else:
            _complain(run_id, f"it is {run.status}")
        good = good and run is not None and (run.status is RunStatus.CANCELLED or not run.status.terminal)
    return 0 if good else 1


async def _until_ended(connection: Dedicated, run_ids: Sequence[UUID]) -> dict[UUID, RunState]:
    """Those that exist, when they have ended, or as they are after a while."""
    deadline = time.monotonic() + _END_SECONDS
    while True:
        found = await connection.run(lambda c: operating.states(c, run_ids))
        if all(run.status.terminal for run in found) or time.monotonic() > deadline:
            return {run.run_id: run for run in found}
        await asyncio.sleep(_LOOK_SECONDS)


async def cancel_all(connection: Dedicated, wanted: RunFilter, *, dry_run: bool, yes: bool) -> int:
    found = await connection.run(lambda c: operating.cancellable(c, wanted, limit=_MOST))
    if (code := _settled(found, "cancelled", dry_run=dry_run, yes=yes)) is not None:
        return code
    asked = 0
    for _ in range(_PASSES):
        left = sorted(match.run_id for match in found)
        for start in range(0, len(left), _BATCH):
            batch = left[start : start + _BATCH]
            asked += len(await connection.run(lambda c: steering.request_cancels(c, batch)))
            _progress(start + len(batch), len(left))
        found = await connection.run(lambda c: operating.cancellable_of(c, left))
        if not found:
            break
        await asyncio.sleep(_PASS_PAUSE_SECONDS)
    echo(f"{asked:,} runs are being cancelled.")
    if found:
        echo(f"{len(found):,} runs were busy all the time: try again.", err=True)
    return 1 if found else 0


async def retry(connection: Dedicated, run_ids: Sequence[UUID]) -> int:
    """1 when one of them stays as it is."""
    queues: set[str] = set()
    refused = False
    for run_id in run_ids:
        outcome = await connection.run(lambda c: steering.retry(c, run_id))
        if isinstance(outcome, RetryRefusal):
            refused = True
            _complain(run_id, outcome.value)
        else:
            queues.add(outcome)
            echo(f"{response_id(run_id)} is queued again")
    await _ring(queues)
    return 1 if refused else 0


async def retry_all(connection: Dedicated, wanted: RunFilter, *, dry_run: bool, yes: bool) -> int:
    found = await connection.run(lambda c: operating.retriable(c, wanted, limit=_MOST))
    if (code := _settled(found, "retried", dry_run=dry_run, yes=yes)) is not None:
        return code
    queues: set[str] = set()
    refused: Counter[RetryRefusal] = Counter()
    for number, match in enumerate(found, 1):
        outcome = await connection.run(lambda c: steering.retry(c, match.run_id))
        if isinstance(outcome, RetryRefusal):
            refused[outcome] += 1
        else:
            queues.add(outcome)
        if number % _BATCH == 0 or number == len(found):
            _progress(number, len(found))
            await _ring(queues)
    echo(f"{len(found) - refused.total():,} runs are queued again.")
    for refusal, count in refused.most_common():
        echo(f"{count:,} stay as they are: {refusal.value}.", err=True)
    return 0


def _settled(found: Sequence[Match], done: str, *, dry_run: bool, yes: bool) -> int | None:
    """The exit code when there is nothing more to do: no run is meant, or nobody has said that it shall be done."""
    if not found:
        echo("No runs.", err=True)
        return 0
    if dry_run or not yes:
        echo("\n".join(drawing.matches(found)))
    if dry_run:
        echo(f"{len(found):,} runs would be {done}.")
        return 0
    if yes:
        return None
    if not sys.stdin.isatty():
        echo(f"outlast: {len(found):,} runs would be {done}. --yes does it.", err=True)
        return 1
    return None if typer.confirm(f"{len(found):,} runs will be {done}. Go on?") else 1


async def _ring(queues: set[str]) -> None:
    """Wake a worker. When Redis is away, or not known here, they look for work by themselves once a beat."""
    config = operators_settings()
    if queues and config.redis_url is not None:
        doorbell = importlib.import_module("outlast.shared.doorbell")  # Celery, which looking at runs does not need
        await asyncio.to_thread(doorbell.ring_once, config.required_redis_url(), config.db_schema, sorted(queues))


def _progress(done: int, of: int) -> None:
    if sys.stderr.isatty():
        echo_progress(f"{done:,} of {of:,}", last=done == of)


def _complain(run_id: UUID, why: str) -> None:
    echo_line(f"outlast: {response_id(run_id)}: {why}.", err=True)
