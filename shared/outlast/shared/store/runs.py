"""Runs: read, finish, cancel, delete. Each change is one guarded statement; its rows say whether it applied."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from outlast.shared.connections import Connection
from outlast.shared.domain.events import Chunk
from outlast.shared.domain.runs import Lease, Run, RunStatus, ToolItems
from outlast.shared.notifications import notify, payloads
from outlast.shared.wire import from_json

from . import pruning
from .threads import ACTIVE

_RUN = """r.id, t.name, r.principal, r.agent, r.status, r.attempt, r.created_at, r.deadline_at, r.background, r.store,
          r.tool_items, r.request, h.last_seq, r.response, r.cancel_requested_at IS NOT NULL, r.charged_attempts,
          r.last_cause, r.previous_run_id, t.id, r.retries, r.forgiven_attempts, r.reopened,
          r.abandoned_at IS NOT NULL, r.expires_at < r.started_at,
          extract(epoch FROM r.started_at - r.created_at)::float8,
          extract(epoch FROM clock_timestamp() - r.started_at)::float8, r.traceparent,
          extract(epoch FROM r.deadline_at - clock_timestamp())::float8"""


async def read(connection: Connection, run_id: UUID, principal: str) -> Run | None:
    cursor = await connection.execute(
        f"""SELECT {_RUN} FROM runs r JOIN run_heads h ON h.run_id = r.id JOIN threads t ON t.id = r.thread_id
            WHERE r.id = %s AND r.principal = %s""",
        (run_id, principal),
        prepare=True,
    )
    row = await cursor.fetchone()
    return _run(row) if row else None


async def read_held(connection: Connection, leases: Sequence[Lease]) -> list[Run]:
    """The runs that these leases are still for."""
    cursor = await connection.execute(
        f"""SELECT {_RUN} FROM unnest(%b::uuid[], %b::int[]) AS held(run_id, attempt)
            JOIN runs r ON r.id = held.run_id AND r.attempt = held.attempt AND r.status = 'in_progress'
            JOIN run_heads h ON h.run_id = r.id JOIN threads t ON t.id = r.thread_id""",
        ([lease.run_id for lease in leases], [lease.attempt for lease in leases]),
        prepare=True,
    )
    return [_run(row) for row in await cursor.fetchall()]


@dataclass(frozen=True, slots=True)
class Ending:
    """How a run ends: its status, its final response and its last events, the terminal one last of all."""

    status: RunStatus
    response: str
    chunk: Chunk
    checkpoint_id: str | None = None
    """The agent's last checkpoint in this run: where a run that names it as its previous one goes on."""


_LARGE = 2**20  # characters of a response that may take longer to store than a statement usually may

# Status, terminal event and the end of the log change together or not at all. Each step takes its rows from the one
# before, so that locks are taken in order; the lease is locked before the head and goes only if the head agreed.
_FINISH = """
WITH t AS MATERIALIZED (
    SELECT id FROM threads WHERE id = (SELECT thread_id FROM runs WHERE id = %(run_id)s) FOR NO KEY UPDATE),
r AS MATERIALIZED (
    SELECT id FROM runs WHERE id = %(run_id)s AND thread_id = (SELECT id FROM t)
    AND status = %(held_as)s AND attempt = %(attempt)s FOR NO KEY UPDATE),
l AS MATERIALIZED (SELECT run_id FROM run_leases WHERE run_id = (SELECT id FROM r) FOR UPDATE),
h AS (
    UPDATE run_heads SET last_seq = %(last_seq)s, closed = true
    WHERE run_id = (SELECT id FROM r) AND (SELECT count(*) FROM l) >= 0
      AND attempt = %(attempt)s AND last_seq = %(first_seq)s - 1 AND NOT closed
    RETURNING run_id),
d AS (DELETE FROM run_leases WHERE run_id = (SELECT run_id FROM h)),
e AS (
    INSERT INTO run_events (run_id, first_seq, last_seq, data)
    SELECT run_id, %(first_seq)s, %(last_seq)s, %(data)s FROM h)
UPDATE runs SET status = %(status)s, response = %(response)s, checkpoint_id = %(checkpoint_id)s, finished_at = now()
WHERE id = (SELECT run_id FROM h) RETURNING id
"""
# What waits on the thread is made ready by a second statement: its snapshot is later than the lock on the thread's row.
# The clock is read there too: now() is when this transaction began, perhaps before the waiting run was submitted.
_PROMOTE = """
UPDATE runs SET ready = true WHERE id = (
    SELECT w.id FROM runs w
    WHERE w.thread_id = {thread_id} AND w.status = 'queued' AND NOT w.ready AND w.run_at <= clock_timestamp()
    AND NOT EXISTS (SELECT 1 FROM runs a WHERE a.thread_id = w.thread_id AND {active})
    ORDER BY w.created_at, w.id LIMIT 1)
"""
_PROMOTE_AFTER_RUN = _PROMOTE.format(active=ACTIVE, thread_id="(SELECT thread_id FROM runs WHERE id = %(run_id)s)")
_PROMOTE_IN_THREAD = _PROMOTE.format(active=ACTIVE, thread_id="%(thread_id)s")


async def finish(connection: Connection, schema: str, lease: Lease, ending: Ending) -> bool:
    """End a run that this attempt holds. False: it is not its any more, or its log is not where it was thought."""
    return await _finish(connection, schema, RunStatus.IN_PROGRESS, lease, ending)


async def finish_queued(connection: Connection, schema: str, lease: Lease, ending: Ending) -> bool:
    """End a run that nobody holds. False: it has been claimed or has ended meanwhile."""
    return await _finish(connection, schema, RunStatus.QUEUED, lease, ending)


async def _finish(connection: Connection, schema: str, held_as: RunStatus, lease: Lease, ending: Ending) -> bool:
    values: dict[str, Any] = {
        "run_id": lease.run_id,
        "attempt": lease.attempt,
        "held_as": held_as.value,
        "first_seq": ending.chunk.first_seq,
        "last_seq": ending.chunk.last_seq,
        "data": ending.chunk.data,
        "status": ending.status.value,
        "response": ending.response,
        "checkpoint_id": ending.checkpoint_id,
    }
    async with connection.pipeline():  # BEGIN and COMMIT rather than sync(), for the reason given in append()
        await connection.execute("BEGIN")
        if len(ending.response) > _LARGE:
            await connection.execute("SELECT set_config('statement_timeout', '60s', true)")
            connection.answer_seconds = 65.0
        finished = await connection.execute(_FINISH, values, prepare=True)
        await connection.execute(_PROMOTE_AFTER_RUN, values, prepare=True)
        await connection.execute("COMMIT")
        await notify(connection, schema, payloads([(lease.run_id, ending.chunk.last_seq)]))
    return await finished.fetchone() is not None


async def delete(connection: Connection, run_id: UUID, principal: str) -> bool:
    """Remove a run and what only it used. An attempt that still holds it finds its lease gone."""
    async with connection.transaction():
        cursor = await connection.execute(
            """SELECT id FROM threads WHERE id = (SELECT thread_id FROM runs WHERE id = %s AND principal = %s)
               FOR UPDATE""",
            (run_id, principal),
        )
        thread = await cursor.fetchone()
        if thread is None:
            return False
        removed = await pruning.remove(connection, [run_id], [thread[0]])
        await connection.execute(_PROMOTE_IN_THREAD, {"thread_id": thread[0]})
        return removed.runs == 1


@dataclass(frozen=True, slots=True)
class Position:
    """Where a run stands: enough to tell whether a write whose answer was lost has been applied."""

    status: RunStatus
    attempt: int
    last_seq: int
    closed: bool


async def position(connection: Connection, run_id: UUID) -> Position | None:
    cursor = await connection.execute(
        """SELECT r.status, h.attempt, h.last_seq, h.closed FROM runs r JOIN run_heads h ON h.run_id = r.id
           WHERE r.id = %s""",
        (run_id,),
        prepare=True,
    )
    row = await cursor.fetchone()
    return Position(RunStatus(row[0]), *row[1:]) if row else None


async def thread_of(connection: Connection, run_id: UUID, principal: str) -> str | None:
    """The name of the thread that a run belongs to."""
    cursor = await connection.execute(
        "SELECT t.name FROM runs r JOIN threads t ON t.id = r.thread_id WHERE r.id = %s AND r.principal = %s",
        (run_id, principal),
        prepare=True,
    )
    row = await cursor.fetchone()
    return row[0] if row else None


@dataclass(frozen=True, slots=True)
class Continuation:
    """Where a run that names this one as its previous one goes on."""

    status: RunStatus
    thread: str
    checkpoint_id: str | None
    """The agent's last checkpoint in this run; None until it has finished, and for agents without checkpoints."""


async def checkpoint_of(connection: Connection, run_id: UUID) -> Continuation | None:
    """What is known of a previous run; None when it has been deleted."""
    cursor = await connection.execute(
        """SELECT r.status, t.name, r.checkpoint_id FROM runs r JOIN threads t ON t.id = r.thread_id
           WHERE r.id = %s""",
        (run_id,),
        prepare=True,
    )
    row = await cursor.fetchone()
    return Continuation(RunStatus(row[0]), *row[1:]) if row else None


def _run(row: tuple[Any, ...]) -> Run:
    return Run(
        run_id=row[0],
        thread=row[1],
        principal=row[2],
        agent=row[3],
        status=RunStatus(row[4]),
        attempt=row[5],
        created_at=row[6],
        deadline_at=row[7],
        background=row[8],
        store=row[9],
        tool_items=ToolItems(row[10]),
        request=from_json(row[11]),
        last_seq=row[12],
        response=row[13],
        cancel_requested=row[14],
        charged_attempts=row[15],
        last_cause=row[16],
        previous_run_id=row[17],
        thread_id=row[18],
        retries=row[19],
        forgiven_attempts=row[20],
        reopened=row[21],
        abandoned=row[22],
        expired=bool(row[23]),
        waited_seconds=row[24],
        begun_seconds=row[25],
        traceparent=row[26],
        seconds_left=row[27],
    )
