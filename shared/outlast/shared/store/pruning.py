"""Removing runs, with what only they used: their events and saves, and with its last run a thread and its checkpoints.

Who removes a run holds its thread: of two that remove the last two runs of a thread, the later one removes the thread.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, LiteralString
from uuid import UUID

from outlast.shared.connections import Connection
from outlast.shared.domain.runs import RunStatus

from .pinning import BY_INDEX
from .threads import ACTIVE

BATCH_RUNS = 100
BATCH_EVENTS = 50_000  # a run with more is a batch of its own
_SLICE_EVENTS = 10_000  # of each run; what one statement removes takes it far less time than it may have
_SLICE_ROWS = 2_000


@dataclass(frozen=True, slots=True)
class Expiry:
    """Which finished runs are to go."""

    seconds: float
    """Since they ended, by the database's clock."""
    unstored: bool = False
    """Only those of requests with ``store: false``."""
    status: RunStatus | None = None
    agent: str | None = None


@dataclass(frozen=True, slots=True)
class Removed:
    """What has been removed. Bytes are those of the stored form, which is compressed."""

    runs: int = 0
    event_bytes: int = 0
    threads: int = 0
    checkpoints: int = 0

    def __add__(self, other: Removed) -> Removed:
        return Removed(
            self.runs + other.runs,
            self.event_bytes + other.event_bytes,
            self.threads + other.threads,
            self.checkpoints + other.checkpoints,
        )


@dataclass(frozen=True, slots=True)
class Candidate:
    """A run that has ended long enough ago. The order is that of their ends."""

    finished_at: datetime
    run_id: UUID
    thread_id: UUID
    events: int
    wanted: bool
    """It has the status and the agent that were asked for."""


@dataclass(frozen=True, slots=True)
class Batch:
    removed: Removed
    last: Candidate | None
    """Where the next batch goes on; None when there is nothing after it."""


EXPIRED: LiteralString = "r.finished_at < now() - make_interval(secs => %(seconds)s)"
_UNSTORED: LiteralString = EXPIRED + " AND NOT r.store"
WANTED: LiteralString = """(%(status)s::text IS NULL OR r.status = %(status)s)
                            AND (%(agent)s::text IS NULL OR r.agent = %(agent)s)"""
_CANDIDATES: LiteralString = """
SELECT r.finished_at, r.id, r.thread_id, h.last_seq + 1, {wanted}
FROM runs r JOIN run_heads h ON h.run_id = r.id
WHERE {expired} AND (r.finished_at, r.id) > (%(after)s::timestamptz, %(after_id)s)
ORDER BY r.finished_at, r.id LIMIT %(limit)s
"""
_HOLD_THREADS = "SELECT id FROM threads WHERE id = ANY(%b::uuid[]) ORDER BY id FOR UPDATE SKIP LOCKED"
# A run that a later one is still to go on from stays: without it, that one would go on from the thread's latest state.
_HOLD_RUNS = f"""
SELECT r.id FROM runs r WHERE r.id = ANY(%b::uuid[]) AND r.thread_id = ANY(%b::uuid[]) AND r.finished_at IS NOT NULL
AND NOT EXISTS (SELECT FROM runs a WHERE a.thread_id = r.thread_id AND {ACTIVE} AND a.previous_run_id = r.id)
AND NOT EXISTS (SELECT FROM runs w WHERE w.thread_id = r.thread_id AND w.status = 'queued' AND NOT w.ready
                AND w.previous_run_id = r.id)
ORDER BY r.id FOR UPDATE OF r SKIP LOCKED
"""
_HELD_IN_ORDER: Sequence[tuple[LiteralString, LiteralString]] = (
    ("runs", "id"), ("run_leases", "run_id"), ("run_heads", "run_id")
)  # fmt: skip
_CHECKPOINT_TABLES: Sequence[LiteralString] = ("checkpoints", "checkpoint_blobs", "checkpoint_writes")


async def prune_next(connection: Connection, expiry: Expiry, after: Candidate | None) -> Batch | None:
    """Remove the next runs that have expired, as one transaction; what others hold is left for another time.

    None: another process is removing some at this moment.
    """
    async with connection.transaction():
        if not await _lead(connection):
            return None
        found = await _candidates(connection, expiry, after)
        batch = within_events(found)
        chosen = [run for run in batch if run.wanted]
        removed = await _prune(connection, chosen) if chosen else Removed()
    return Batch(removed, batch[-1] if len(batch) < len(found) or len(found) == BATCH_RUNS else None)


def within_events(found: Sequence[Candidate]) -> Sequence[Candidate]:
    """The first of these that a batch may have: so many events, or one run."""
    total = 0
    for place, run in enumerate(found):
        total += run.events if run.wanted else 0
        if total > BATCH_EVENTS and place > 0:
            return found[:place]
    return found


async def _lead(connection: Connection) -> bool:
    cursor = await connection.execute(
        "SELECT pg_try_advisory_xact_lock(hashtextextended(current_schema() || '.retention', 0))"
    )
    row = await cursor.fetchone()
    return bool(row and row[0])


async def _candidates(connection: Connection, expiry: Expiry, after: Candidate | None) -> list[Candidate]:
    values = values_of(expiry) | {
        "after": after.finished_at if after else "-infinity",
        "after_id": after.run_id if after else UUID(int=0),
        "limit": BATCH_RUNS,
    }
    statement = _CANDIDATES.format(wanted=WANTED, expired=_UNSTORED if expiry.unstored else EXPIRED)
    cursor = await connection.execute(statement, values, prepare=False)
    return [Candidate(*row) for row in await cursor.fetchall()]


def values_of(expiry: Expiry) -> dict[str, Any]:
    status = expiry.status.value if expiry.status else None
    return {"seconds": expiry.seconds, "status": status, "agent": expiry.agent}


async def _prune(connection: Connection, chosen: Sequence[Candidate]) -> Removed:
    cursor = await connection.execute(_HOLD_THREADS, ([run.thread_id for run in chosen],))
    threads = [row[0] for row in await cursor.fetchall()]
    cursor = await connection.execute(_HOLD_RUNS, ([run.run_id for run in chosen], threads))
    return await remove(connection, [row[0] for row in await cursor.fetchall()], threads)


async def remove(connection: Connection, run_ids: Sequence[UUID], thread_ids: Sequence[UUID]) -> Removed:
    """Remove these runs, in whatever state they are, and those of these threads that have no other.

    The transaction must hold the threads FOR UPDATE: then no run can be added to them. An attempt that still holds one
    of the runs finds its lease gone; what it was writing is waited for, and removed by what comes after.
    """
    # Sessions may have planned these while the tables were small, and foreign keys plan for themselves at first use.
    await connection.execute(BY_INDEX)
    runs, threads = list(run_ids), list(thread_ids)
    for table, key in _HELD_IN_ORDER:
        await connection.execute(
            f"SELECT FROM {table} WHERE {key} = ANY(%b::uuid[]) ORDER BY {key} FOR UPDATE", (runs,)
        )
    event_bytes = await _remove_events(connection, runs)
    gone = await connection.execute("DELETE FROM runs WHERE id = ANY(%b::uuid[])", (runs,))
    cursor = await connection.execute(
        """SELECT id FROM threads t WHERE id = ANY(%b::uuid[])
           AND NOT EXISTS (SELECT FROM runs WHERE thread_id = t.id) ORDER BY id""",
        (threads,),
    )
    empty = [row[0] for row in await cursor.fetchall()]
    checkpoints = await _remove_checkpoints(connection, empty) if empty else 0
    await connection.execute("DELETE FROM threads WHERE id = ANY(%b::uuid[])", (empty,))
    return Removed(gone.rowcount, event_bytes, len(empty), checkpoints)


# In slices: a statement may not take long, and a run may have any number of events, a thread of checkpoints.
_REMOVE_EVENTS = """
WITH gone AS (
    DELETE FROM run_events WHERE run_id = ANY(%b::uuid[]) AND last_seq BETWEEN %s AND %s
    RETURNING pg_column_size(data) AS bytes)
SELECT coalesce(sum(bytes), 0)::bigint FROM gone
"""
_REMOVE_OF_THREADS: LiteralString = """
DELETE FROM {table} WHERE ctid = ANY(ARRAY(
    SELECT ctid FROM {table} WHERE thread_id = ANY(%b::text[]) LIMIT %s))
"""


async def _remove_events(connection: Connection, runs: list[UUID]) -> int:
    """Returns their bytes."""
    cursor = await connection.execute("SELECT max(last_seq) FROM run_heads WHERE run_id = ANY(%b::uuid[])", (runs,))
    row = await cursor.fetchone()
    last = row[0] if row and row[0] is not None else -1
    removed = 0
    for first in range(0, last + 1, _SLICE_EVENTS):
        cursor = await connection.execute(_REMOVE_EVENTS, (runs, first, first + _SLICE_EVENTS - 1))
        row = await cursor.fetchone()
        removed += row[0] if row else 0
    return removed


async def _remove_checkpoints(connection: Connection, threads: Sequence[UUID]) -> int:
    """LangGraph's rows of these threads. Returns how many checkpoints there were."""
    if not await has_checkpoints(connection):
        return 0
    names = [str(thread) for thread in threads]
    counts = [await _remove_of_threads(connection, table, names) for table in _CHECKPOINT_TABLES]
    return counts[0]


async def _remove_of_threads(connection: Connection, table: LiteralString, names: list[str]) -> int:
    statement, removed = _REMOVE_OF_THREADS.format(table=table), 0
    while True:
        gone = await connection.execute(statement, (names, _SLICE_ROWS))
        removed += gone.rowcount
        if gone.rowcount < _SLICE_ROWS:
            return removed


async def has_checkpoints(connection: Connection) -> bool:
    """Whether LangGraph's tables are in our schema: where no graph is served nobody has made them."""
    cursor = await connection.execute("SELECT to_regclass(format('%I.checkpoints', current_schema())) IS NOT NULL")
    row = await cursor.fetchone()
    return bool(row and row[0])
