"""What operators do to runs of any principal: end them, or have them tried again after their end."""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

from outlast.shared.connections import Connection
from outlast.shared.domain.operating import RetryRefusal
from outlast.shared.domain.runs import RunStatus

from .submissions import TURN_BEFORE
from .threads import ACTIVE

_CANCEL = """
UPDATE runs SET cancel_requested_at = now() WHERE id = ANY(ARRAY(
    SELECT id FROM runs WHERE id = ANY(%b::uuid[]) AND status IN ('queued', 'in_progress')
    AND cancel_requested_at IS NULL ORDER BY id FOR NO KEY UPDATE {skip}))
RETURNING id
"""
_CANCEL_FREE, _CANCEL_ONE = _CANCEL.format(skip="SKIP LOCKED"), _CANCEL.format(skip="")


async def request_cancel(connection: Connection, run_id: UUID) -> bool:
    """Ask for the end of a run; whoever holds it, or the sweep, ends it. False: it was asked before, or has ended."""
    cursor = await connection.execute(_CANCEL_ONE, ([run_id],))
    return await cursor.fetchone() is not None


async def request_cancels(connection: Connection, run_ids: Sequence[UUID]) -> list[UUID]:
    """The same for many. Returns those that were asked; others may have ended, or somebody is busy with them."""
    cursor = await connection.execute(_CANCEL_FREE, (list(run_ids),))
    return [row[0] for row in await cursor.fetchall()]


_THREAD = "SELECT id FROM threads WHERE id = (SELECT thread_id FROM runs WHERE id = %s) FOR NO KEY UPDATE"
_STANDING = f"""
SELECT r.status, h.last_seq, EXISTS (SELECT 1 FROM run_events e WHERE e.run_id = r.id AND e.last_seq = h.last_seq),
       EXISTS (SELECT 1 FROM runs a WHERE a.thread_id = r.thread_id AND a.id <> r.id AND {ACTIVE}),
       EXISTS (SELECT 1 FROM runs a WHERE a.thread_id = r.thread_id AND a.id <> r.id
               AND a.attempt > 0 AND coalesce(a.started_at > r.started_at, a.id > r.id))
FROM runs r JOIN run_heads h ON h.run_id = r.id WHERE r.id = %s
"""
# The terminal event is the last line of the last row, which holds others too once the log has been compacted.
_CUT_ROW = """
UPDATE run_events SET last_seq = last_seq - 1, data = left(data, length(data) - strpos(reverse(data), E'\\n'))
WHERE run_id = %(run_id)s AND last_seq = %(last_seq)s AND first_seq < last_seq
"""
_CUT_EVENT = "DELETE FROM run_events WHERE run_id = %(run_id)s AND last_seq = %(last_seq)s"
_OPEN_LOG = "UPDATE run_heads SET last_seq = last_seq - 1, closed = false WHERE run_id = %(run_id)s"
# It comes after its principal's other runs, as if submitted now: a thousand that are retried delay nobody else.
# Whoever has it retried counts as a client that waits for it: it is not abandoned.
_QUEUE = f"""
UPDATE runs SET status = 'queued', ready = true, response = NULL, finished_at = NULL, cancel_requested_at = NULL,
       expires_at = NULL, deadline_at = CASE WHEN attempt > 0 THEN now() + make_interval(secs => timeout_seconds) END,
       connections = 1, abandoned_at = NULL, charged_attempts = 0, retries = 0, forgiven_attempts = attempt,
       reopened = reopened + 1,
       turn = 1 + {TURN_BEFORE.format(queue="q.queue", principal="q.principal")}
FROM (SELECT queue, principal FROM runs WHERE id = %(run_id)s) q
WHERE runs.id = %(run_id)s RETURNING runs.queue
"""


async def retry(connection: Connection, run_id: UUID) -> str | RetryRefusal:
    """Withdraw the end of a run and put it back into the queue, to go on from where its last attempt stopped.

    Returns its queue, in which a bell is to be rung, or why the run stays as it is. Who had read the log to its end
    has to read it again: its last number is given anew. (docs/decisions/0004)
    """
    async with connection.transaction():
        # Locks in order; each statement's snapshot is later than the locks before it, so that what a finish, a
        # submission, another retry or a compaction has done meanwhile is seen.
        await connection.execute(_THREAD, (run_id,))
        await connection.execute("SELECT FROM runs WHERE id = %s FOR NO KEY UPDATE", (run_id,))
        await connection.execute("SELECT FROM run_heads WHERE run_id = %s FOR NO KEY UPDATE", (run_id,))
        cursor = await connection.execute(_STANDING, (run_id,))
        standing = await cursor.fetchone()
        if refusal := _refusal(*standing) if standing else RetryRefusal.NOT_FOUND:
            return refusal
        assert standing is not None
        values = {"run_id": run_id, "last_seq": standing[1]}
        async with connection.pipeline():
            await connection.execute(_CUT_ROW, values)
            await connection.execute(_CUT_EVENT, values)
            await connection.execute(_OPEN_LOG, values)
            cursor = await connection.execute(_QUEUE, values)
        [(queue,)] = await cursor.fetchall()
        return queue


def _refusal(status: str, _last_seq: int, has_end: bool, thread_busy: bool, moved_on: bool) -> RetryRefusal | None:
    match RunStatus(status):
        case RunStatus.QUEUED | RunStatus.IN_PROGRESS:
            return RetryRefusal.ACTIVE
        case RunStatus.COMPLETED | RunStatus.INCOMPLETE:
            return RetryRefusal.SUCCEEDED
        case RunStatus.FAILED | RunStatus.CANCELLED:
            pass
    if thread_busy:
        return RetryRefusal.THREAD_BUSY
    if moved_on:
        return RetryRefusal.THREAD_MOVED_ON
    return None if has_end else RetryRefusal.EVENTS_GONE
