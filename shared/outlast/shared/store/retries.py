"""Runs that are to be tried again after a while: queued until then, not ready, and holding neither slot nor lease.

Such a run stays the active one of its thread: a later run of the thread waits for it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import LiteralString
from uuid import UUID

from outlast.shared.connections import Connection
from outlast.shared.domain.runs import Lease

_RELEASE = """
WITH r AS MATERIALIZED (
    SELECT id FROM runs WHERE id = %(run_id)s AND attempt = %(attempt)s AND status = 'in_progress' FOR NO KEY UPDATE),
l AS (
    DELETE FROM run_leases WHERE run_id = (SELECT id FROM r) AND attempt = %(attempt)s RETURNING run_id)
UPDATE runs SET status = 'queued', ready = cancel_requested_at IS NOT NULL,
       run_at = clock_timestamp() + make_interval(secs => %(seconds)s), retries = retries + 1,
       last_cause = CASE WHEN charged_attempts = 0 THEN %(cause)s ELSE last_cause END
WHERE id = (SELECT run_id FROM l) RETURNING id
"""
# In the order of its index: in that of ids all runs there are would be read. It waits for nobody, so any order is safe.
_WAKE = """
UPDATE runs SET ready = true WHERE id = ANY(ARRAY(
    SELECT id FROM runs WHERE status = 'queued' AND NOT ready AND attempt > 0 AND run_at <= now()
    ORDER BY run_at FOR NO KEY UPDATE SKIP LOCKED))
RETURNING id
"""
_DUE_WITHIN = """
SELECT EXISTS (SELECT 1 FROM runs WHERE status = 'queued' AND NOT ready AND attempt > 0
               AND run_at <= now() + make_interval(secs => %s))
"""
PLANNED: Mapping[str, LiteralString] = {"runs_delayed": _WAKE}
"""The index that a statement must use -> the statement, for `outlast doctor`."""


async def release(connection: Connection, lease: Lease, *, seconds: float, cause: str) -> bool:
    """Put a run back into the queue, to be claimed in so many seconds. False: it is not this attempt's any more.

    A run that is to be cancelled does not wait. ``cause`` is kept unless the run has been charged for a worse one.
    """
    values = {"run_id": lease.run_id, "attempt": lease.attempt, "seconds": seconds, "cause": cause}
    cursor = await connection.execute(_RELEASE, values)
    return await cursor.fetchone() is not None


async def wake(connection: Connection) -> list[UUID]:
    """Make ready what has waited for its retry long enough."""
    cursor = await connection.execute(_WAKE)
    return [row[0] for row in await cursor.fetchall()]


async def due_within(connection: Connection, seconds: float) -> bool:
    """Whether a run's retry is to begin so soon."""
    cursor = await connection.execute(_DUE_WITHIN, (seconds,))
    row = await cursor.fetchone()
    return bool(row and row[0])
