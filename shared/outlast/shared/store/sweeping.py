"""What the sweep asks and does. Each statement is harmless to repeat, and skips what others have locked."""

from __future__ import annotations

from collections.abc import Mapping
from typing import LiteralString
from uuid import UUID

from outlast.shared.connections import Connection

from .leases import REQUEUE
from .threads import ACTIVE

# Out of the usual order (leases before runs), which is safe since it waits for nobody: what hangs, hangs alone.
_TAKE_BACK = """
WITH d AS MATERIALIZED (
    SELECT run_id, attempt FROM run_leases WHERE lease_until < now() ORDER BY run_id FOR UPDATE SKIP LOCKED),
""" + REQUEUE.format(skip="SKIP LOCKED", also="")
# The threads with waiting runs, one index probe each, and of each the run that waits longest.
_PROMOTE = f"""
WITH RECURSIVE waiting AS (
    (SELECT id, thread_id FROM runs WHERE status = 'queued' AND NOT ready ORDER BY thread_id, created_at LIMIT 1)
    UNION ALL
    SELECT n.id, n.thread_id FROM waiting w CROSS JOIN LATERAL (
        SELECT id, thread_id FROM runs WHERE status = 'queued' AND NOT ready AND thread_id > w.thread_id
        ORDER BY thread_id, created_at LIMIT 1) n),
idle AS MATERIALIZED (
    SELECT w.id, w.thread_id FROM waiting w
    WHERE NOT EXISTS (SELECT 1 FROM runs a WHERE a.thread_id = w.thread_id AND {ACTIVE})),
free AS MATERIALIZED (
    SELECT idle.id FROM idle CROSS JOIN LATERAL (
        SELECT FROM threads WHERE id = idle.thread_id FOR NO KEY UPDATE SKIP LOCKED) t)
UPDATE runs SET ready = true
WHERE id IN (SELECT id FROM free) AND status = 'queued' AND run_at <= now() RETURNING id
"""
_READY_QUEUES = """
WITH RECURSIVE q AS (
    (SELECT queue FROM runs WHERE status = 'queued' AND ready ORDER BY queue LIMIT 1)
    UNION ALL
    SELECT n.queue FROM q CROSS JOIN LATERAL (
        SELECT queue FROM runs WHERE status = 'queued' AND ready AND queue > q.queue ORDER BY queue LIMIT 1) n)
SELECT queue FROM q
"""
PLANNED: Mapping[str, LiteralString] = {"runs_waiting": _PROMOTE, "run_leases_pkey": _TAKE_BACK}
"""The index that a statement must use -> the statement, for `outlast doctor`."""


async def lead(connection: Connection) -> bool:
    """Whether this transaction is the sweep's leader; for as long as it lasts nobody else is."""
    cursor = await connection.execute(
        "SELECT pg_try_advisory_xact_lock(hashtextextended(current_schema() || '.sweep', 0))"
    )
    row = await cursor.fetchone()
    return bool(row and row[0])


async def take_back_expired(connection: Connection) -> list[UUID]:
    """Hand the runs of silent workers back to the head of the queue."""
    cursor = await connection.execute(_TAKE_BACK, {"cause": "lease_expired", "charge": 0})
    return [row[0] for row in await cursor.fetchall()]


async def promote_orphans(connection: Connection) -> int:
    """Make ready the first waiting run of every thread that has no active one. Returns how many."""
    cursor = await connection.execute(_PROMOTE)
    return len(await cursor.fetchall())


async def ready_queues(connection: Connection) -> list[str]:
    """The queues in which a run could be claimed now."""
    cursor = await connection.execute(_READY_QUEUES)
    return [row[0] for row in await cursor.fetchall()]


async def anything_runs(connection: Connection) -> bool:
    cursor = await connection.execute("SELECT EXISTS (SELECT 1 FROM run_leases)")
    row = await cursor.fetchone()
    return bool(row and row[0])


async def anything_waits(connection: Connection) -> bool:
    """Whether a run that may not be claimed yet waits, or one that was not to be stored for its removal."""
    cursor = await connection.execute(
        """SELECT EXISTS (SELECT 1 FROM runs WHERE status = 'queued' AND NOT ready)
               OR EXISTS (SELECT 1 FROM runs WHERE NOT store AND finished_at IS NOT NULL)"""
    )
    row = await cursor.fetchone()
    return bool(row and row[0])
