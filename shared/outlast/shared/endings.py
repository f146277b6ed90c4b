"""Ending a run that no attempt ends: it waits, or the worker that has it is gone, stuck or out of reach."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any
from uuid import UUID

from .connections import Connection, Database
from .domain.events import Chunk, Event
from .domain.ids import item_id
from .domain.overdue import MESSAGES, EndReason, Overdue
from .domain.runs import Lease, Run, RunStatus
from .output import Output
from .output.replay import Kept, Past, replay
from .store import events, overdue, runs, saves
from .wire import event_from, event_line, from_json, to_json


async def end(database: Database, found: Overdue, *, lease_seconds: float) -> bool:
    """End this run, with all that its attempts have said. False: somebody else has ended it, or it has gone on.

    Raises Unavailable. Whoever takes longer than the lease may be overtaken by another who ends it.
    """
    lease: Lease | None = Lease(found.run_id, 0)
    if found.attempt > 0:
        lease = await database.run(lambda c: overdue.seize(c, found, lease_seconds=lease_seconds))
    run = lease and await database.run(lambda c: runs.read(c, found.run_id, found.principal))
    if lease is None or run is None or run.attempt != lease.attempt:
        return False
    ending = ended(run, await past_of(database, run.run_id), found.reason)
    finish = runs.finish if lease.attempt > 0 else runs.finish_queued
    return await database.run(lambda c: finish(c, database.schema, lease, ending))


def ended(run: Run, past: Past, reason: EndReason) -> runs.Ending:
    """The end of a run for this reason: what is open in it is closed, and what was said stays."""
    output = Output(replace(run, last_seq=past.last_seq), partial(item_id, run.run_id), time.time, past)
    if reason is EndReason.CANCELLED:
        return ending_of(RunStatus.CANCELLED, *output.cancel())
    return ending_of(RunStatus.FAILED, *output.fail(reason, MESSAGES[reason]))


def ending_of(status: RunStatus, last: Sequence[Event], response: dict[str, Any]) -> runs.Ending:
    """The end of a run whose last events are these."""
    chunk = Chunk(last[0].sequence_number, last[-1].sequence_number, "\n".join(map(event_line, last)))
    return runs.Ending(status, to_json(response), chunk)


async def past_of(database: Database, run_id: UUID) -> Past:
    """All that is stored of a run's attempts."""

    async def read(connection: Connection) -> Past:
        lines = await events.read_all(connection, run_id)
        saved = await saves.read(connection, run_id)
        return replay(map(event_from, lines), saved and Kept(saved.kept_seq, **from_json(saved.values)))

    return await database.run(read)
