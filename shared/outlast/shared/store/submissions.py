"""Accepting runs. The committed row is the outbox: nothing else has to happen for the run to be executed."""

from __future__ import annotations

from outlast.shared.connections import Connection
from outlast.shared.domain.events import Chunk
from outlast.shared.domain.runs import Submission
from outlast.shared.wire import to_json

# The turn makes the queue fair: a principal's next run comes after its last, but never before the turn being served.
_INSERT = """
INSERT INTO runs (id, principal, thread_id, previous_run_id, agent, queue, priority, turn, ready, created_at,
                  timeout_seconds, background, store, tool_items, request)
SELECT %(run_id)s, %(principal)s, t.id, %(previous_run_id)s, %(agent)s, %(queue)s, %(priority)s,
       1 + greatest(
           coalesce((SELECT turn FROM runs
                     WHERE queue = %(queue)s AND principal = %(principal)s AND status = 'queued'
                     ORDER BY queue DESC, principal DESC, turn DESC LIMIT 1), 0),
           coalesce((SELECT turn - 1 FROM runs WHERE queue = %(queue)s AND status = 'queued' AND ready
                     ORDER BY queue, priority, turn, created_at LIMIT 1), 0)),
       {ready}, %(created_at)s, %(timeout_seconds)s, %(background)s, %(store)s, %(tool_items)s, %(request)s
FROM t
ON CONFLICT DO NOTHING
RETURNING id
"""
_LOG = """
, h AS (INSERT INTO run_heads (run_id, last_seq) SELECT id, %(last_seq)s FROM r RETURNING run_id)
INSERT INTO run_events (run_id, first_seq, last_seq, data)
SELECT run_id, 0, %(last_seq)s, %(data)s FROM h RETURNING run_id
"""
_THREAD = """
WITH t AS (INSERT INTO threads (id, principal, name) VALUES (%(thread_id)s, %(principal)s, %(thread)s)
           ON CONFLICT (principal, name) DO UPDATE SET name = EXCLUDED.name RETURNING id)
"""
_LOCK_THREAD = "SELECT id FROM threads WHERE principal = %(principal)s AND name = %(thread)s FOR NO KEY UPDATE"
_SUBMIT_READY = f"{_THREAD}, r AS ({_INSERT.format(ready='true')}) {_LOG}"
_SUBMIT_WAITING = f"""
WITH t AS (SELECT id FROM threads WHERE principal = %(principal)s AND name = %(thread)s),
r AS ({
    _INSERT.format(
        ready='''NOT EXISTS (SELECT 1 FROM runs a WHERE a.thread_id = t.id AND
            (a.status = 'in_progress' OR (a.status = 'queued' AND a.ready)))'''
    )
}) {_LOG}
"""


async def submit(connection: Connection, submission: Submission, log: Chunk) -> None:
    """Store a run with its thread and first events; repeating it changes nothing.

    A run whose thread is busy is stored waiting: `finish` makes it ready.
    """
    values = _values(submission, log)
    cursor = await connection.execute(_SUBMIT_READY, values, prepare=True)
    if await cursor.fetchone() is None:
        await _submit_waiting(connection, values)


async def _submit_waiting(connection: Connection, values: dict[str, object]) -> None:
    # The thread's row is locked first and looked at in a second statement, whose snapshot is later than the lock:
    # the run that is active now can then not finish without seeing this one. One Sync: one transaction.
    async with connection.pipeline():
        await connection.execute(_LOCK_THREAD, values)
        await connection.execute(_SUBMIT_WAITING, values)


def _values(submission: Submission, log: Chunk) -> dict[str, object]:
    return {
        "run_id": submission.run_id,
        "thread_id": submission.thread_id,
        "thread": submission.thread,
        "principal": submission.principal,
        "agent": submission.agent,
        "queue": submission.queue,
        "priority": submission.priority,
        "previous_run_id": submission.previous_run_id,
        "created_at": submission.created_at,
        "timeout_seconds": submission.timeout_seconds,
        "background": submission.background,
        "store": submission.store,
        "tool_items": submission.tool_items.value,
        "request": to_json(submission.request),
        "last_seq": log.last_seq,
        "data": log.data,
    }
