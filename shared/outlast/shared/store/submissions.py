"""Accepting runs. The committed row is the outbox: nothing else has to happen for the run to be executed."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from uuid import UUID

import psycopg

from outlast.shared.connections import PINNED_PLAN, Connection
from outlast.shared.domain.errors import Invalid, OutlastError, ThreadBusy
from outlast.shared.domain.events import Chunk
from outlast.shared.domain.runs import MultitaskStrategy, Submission

from .overview import ESTIMATED_QUEUED
from .pinning import BY_INDEX
from .threads import ACTIVE

BATCH_SESSION = PINNED_PLAN
"""For the connection of `submit_batch`: its plan may be made while the tables are small, or after they were analysed
while nobody waited. Another one would read all runs, or the whole queue, for as long as the connection lives."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A run to be stored: what is known of it, its request as JSON text, and its first events."""

    submission: Submission
    request: str
    log: Chunk


class Refused(Invalid):
    """The database cannot store a value of this request."""

    default_code = "not_storable"


class BatchRefused(OutlastError):
    """The database refused a batch, though its connection is well: one entry of it may be the reason."""


# The turn makes the queue fair: a principal's next run comes after its last, but never before the turn being served.
# Both probes are written as the whole order of an index, so that each reads one entry of it.
TURN_BEFORE = """greatest(
    coalesce((SELECT turn FROM runs WHERE queue = {queue} AND principal = {principal} AND status = 'queued'
              ORDER BY queue DESC, principal DESC, turn DESC LIMIT 1), 0),
    coalesce((SELECT turn - 1 FROM runs WHERE queue = {queue} AND status = 'queued' AND ready
              ORDER BY queue, priority, turn, created_at LIMIT 1), 0))"""

# Threads first, in order of name: new ones are inserted, those that exist are locked unless another transaction holds
# them. Each later step takes its rows from the one before, and what waits for another's key does so in order of keys:
# batches of several replicas cannot wait for one another in a circle. A run that conflicts is left out.
_SUBMIT_BATCH = f"""
WITH b AS MATERIALIZED (
    SELECT * FROM unnest(
        %b::uuid[], %b::uuid[], %b::text[], %b::text[], %b::uuid[], %b::text[], %b::text[], %b::smallint[],
        %b::timestamptz[], %b::int[], %b::boolean[], %b::boolean[], %b::text[], %b::text[], %b::bytea[], %b::text[],
        %b::text[], %b::int[], %b::text[], %b::int[], %b::text[])
    WITH ORDINALITY AS b(
        run_id, thread_id, thread, principal, previous_run_id, agent, queue, priority, created_at, timeout_seconds,
        background, store, tool_items, idempotency_key, request_digest, title, request, last_seq, data, expire_after,
        traceparent, place)),
n AS (
    INSERT INTO threads (id, principal, name) SELECT thread_id, principal, thread FROM b ORDER BY principal, thread
    ON CONFLICT DO NOTHING RETURNING id),
t AS MATERIALIZED (
    SELECT b.place, n.id FROM n JOIN b ON b.thread_id = n.id
    UNION ALL
    SELECT b.place, e.id FROM b CROSS JOIN LATERAL (
        SELECT id FROM threads WHERE principal = b.principal AND name = b.thread FOR NO KEY UPDATE SKIP LOCKED) e),
g AS MATERIALIZED (
    SELECT queue, principal, {TURN_BEFORE.format(queue="d.queue", principal="d.principal")} AS turn
    FROM (SELECT DISTINCT queue, principal FROM b) d),
r AS (
    INSERT INTO runs (id, principal, thread_id, previous_run_id, agent, queue, priority, turn, ready, created_at,
                      timeout_seconds, background, store, tool_items, idempotency_key, request_digest, title, request,
                      expires_at, traceparent)
    SELECT b.run_id, b.principal, t.id, nullif(b.previous_run_id, b.run_id), b.agent, b.queue, b.priority,
           g.turn + row_number() OVER (PARTITION BY b.queue, b.principal ORDER BY b.place), true, b.created_at,
           b.timeout_seconds, b.background, b.store, b.tool_items, nullif(b.idempotency_key, ''),
           nullif(b.request_digest, ''), b.title, b.request,
           now() + make_interval(secs => nullif(b.expire_after, 0)), nullif(b.traceparent, '')
    FROM b JOIN t USING (place) JOIN g USING (queue, principal)
    ORDER BY b.principal, b.idempotency_key, b.place
    ON CONFLICT DO NOTHING RETURNING id),
h AS (
    INSERT INTO run_heads (run_id, last_seq)
    SELECT b.run_id, b.last_seq FROM r JOIN b ON b.run_id = r.id RETURNING run_id),
e AS (
    INSERT INTO run_events (run_id, first_seq, last_seq, data)
    SELECT b.run_id, 0, b.last_seq, b.data FROM h JOIN b ON b.run_id = h.run_id)
SELECT array_agg(run_id) FROM h
"""
_HOLD_THREAD = """
INSERT INTO threads (id, principal, name) VALUES (%(thread_id)s, %(principal)s, %(thread)s)
ON CONFLICT (principal, name) DO UPDATE SET name = EXCLUDED.name
"""
_NOT_ENDED = "a.status IN ('queued', 'in_progress')"
_SUBMIT = f"""
WITH t AS (SELECT id FROM threads WHERE principal = %(principal)s AND name = %(thread)s),
r AS (
    INSERT INTO runs (id, principal, thread_id, previous_run_id, agent, queue, priority, turn, ready, created_at,
                      timeout_seconds, background, store, tool_items, idempotency_key, request_digest, title, request,
                      expires_at, traceparent)
    SELECT %(run_id)s, %(principal)s, t.id, %(previous_run_id)s, %(agent)s, %(queue)s, %(priority)s,
           1 + {TURN_BEFORE.format(queue="%(queue)s", principal="%(principal)s")},
           NOT EXISTS (SELECT 1 FROM runs a WHERE a.thread_id = t.id AND {ACTIVE}),
           %(created_at)s, %(timeout_seconds)s, %(background)s, %(store)s, %(tool_items)s, %(idempotency_key)s,
           %(request_digest)s, %(title)s, %(request)s, now() + make_interval(secs => %(expire_after)s),
           %(traceparent)s
    FROM t WHERE NOT %(alone)s OR NOT EXISTS (SELECT 1 FROM runs a WHERE a.thread_id = t.id AND {_NOT_ENDED})
    ON CONFLICT DO NOTHING RETURNING id),
h AS (INSERT INTO run_heads (run_id, last_seq) SELECT id, %(last_seq)s FROM r RETURNING run_id)
INSERT INTO run_events (run_id, first_seq, last_seq, data)
SELECT run_id, 0, %(last_seq)s, %(data)s FROM h RETURNING run_id
"""
_CANCEL_OTHERS = f"""
UPDATE runs a SET cancel_requested_at = coalesce(a.cancel_requested_at, now())
WHERE a.id IN (
    SELECT a.id FROM runs a JOIN threads t ON t.id = a.thread_id
    WHERE t.principal = %(principal)s AND t.name = %(thread)s AND {_NOT_ENDED} AND a.id <> %(run_id)s
    AND NOT EXISTS (SELECT 1 FROM runs WHERE id = %(run_id)s) AND NOT EXISTS (
        SELECT 1 FROM runs WHERE principal = %(principal)s AND idempotency_key = %(idempotency_key)s)
    ORDER BY a.id FOR NO KEY UPDATE OF a)
"""
_STORED = """
SELECT id FROM runs WHERE id = %(run_id)s
UNION ALL SELECT id FROM runs WHERE principal = %(principal)s AND idempotency_key = %(idempotency_key)s LIMIT 1
"""


async def submit_batch(connection: Connection, batch: Sequence[Entry]) -> set[UUID]:
    """Store many runs in one transaction, with their threads and first events. Returns those that it stored.

    No two of them may be of one thread or have one idempotency key. What is missing from the answer has to go through
    `submit`: its thread has another run, its key is known, or it had been stored before. Raises BatchRefused.
    """
    values = [list(column) for column in zip(*map(_row, batch), strict=True)]
    try:
        cursor = await connection.execute(_SUBMIT_BATCH, values, prepare=True)
    except (*_REFUSALS, *_DELAYS) as error:
        raise BatchRefused from error
    row = await cursor.fetchone()
    return set(row[0] or ()) if row else set()


async def submit(connection: Connection, entry: Entry) -> UUID:
    """Store a run with its thread and first events; repeating it changes nothing. Raises Refused.

    Returns its id, or that of an earlier run with its idempotency key. A run whose thread is busy is stored waiting:
    `finish` makes it ready. By its strategy it may cancel the others of its thread, or be refused: raises ThreadBusy.
    """
    values = _values(entry)
    strategy = entry.submission.multitask_strategy
    while True:
        with _refusals():
            # The thread's row is locked first and looked at in a second statement, whose snapshot is later than the
            # lock: the run that is active now can then not finish without seeing this one. One Sync: one transaction.
            async with connection.pipeline():
                await connection.execute(BY_INDEX)
                await connection.execute(_HOLD_THREAD, values)
                if strategy is MultitaskStrategy.INTERRUPT:
                    await connection.execute(_CANCEL_OTHERS, values)
                inserted = await connection.execute(_SUBMIT, values)
        stored = await inserted.fetchone()
        stored = stored or await (await connection.execute(_STORED, values, prepare=False)).fetchone()
        if stored is not None:
            return stored[0]
        if strategy is MultitaskStrategy.REJECT:
            raise ThreadBusy
        # The run whose key kept this one out has been deleted meanwhile: its key is free.


async def known(connection: Connection, principal: str, idempotency_key: str) -> tuple[UUID, bytes] | None:
    """The run that was submitted with this key, and the digest of its request."""
    cursor = await connection.execute(
        "SELECT id, request_digest FROM runs WHERE principal = %s AND idempotency_key = %s",
        (principal, idempotency_key),
        prepare=False,
    )
    row = await cursor.fetchone()
    return (row[0], row[1]) if row else None


COUNTED_EXACTLY = 50_000  # before a vacuum each is fetched from the table: some 8 microseconds a run


async def _estimate_queued(connection: Connection) -> int:
    row = await (await connection.execute(ESTIMATED_QUEUED)).fetchone()
    return row[0] if row else 0


async def count_queued(
    connection: Connection, limit: int, queue: str | None = None, principal: str | None = None
) -> int:
    """How many runs wait, of everybody or of one principal in one queue; at most ``limit`` are counted.

    Reads one index in its order, which the planner would not choose by itself. Of everybody's runs, `COUNTED_EXACTLY`
    are counted; when there are more the number is what Postgres estimates.
    """
    if principal is None and limit > COUNTED_EXACTLY:
        counted = await count_queued(connection, COUNTED_EXACTLY)
        return counted if counted < COUNTED_EXACTLY else max(counted, min(limit, await _estimate_queued(connection)))
    whose, order = (
        ("", "queue, principal, turn")
        if principal is None
        else ("AND queue = %(queue)s AND principal = %(principal)s", "turn")
    )
    async with connection.pipeline():  # one Sync: one transaction, which the settings end with
        await connection.execute(BY_INDEX)
        cursor = await connection.execute(
            f"""SELECT count(*) FROM (
                SELECT FROM runs WHERE status = 'queued' {whose} ORDER BY {order} LIMIT %(limit)s) q""",
            {"queue": queue, "principal": principal, "limit": limit},
            prepare=False,
        )
    row = await cursor.fetchone()
    return row[0] if row else 0


_REFUSALS = (psycopg.DataError, psycopg.IntegrityError, psycopg.errors.ProgramLimitExceeded)
_DELAYS = (
    psycopg.errors.QueryCanceled,
    psycopg.errors.LockNotAvailable,
    psycopg.errors.DeadlockDetected,
    psycopg.errors.SerializationFailure,
)


@contextmanager
def _refusals() -> Generator[None]:
    try:
        yield
    except _REFUSALS as error:
        raise Refused(f"The request cannot be stored: {error.diag.message_primary or error}.") from error


_NO_KEY, _NO_DIGEST, _NO_TRACE = "", b"", ""


def _row(entry: Entry) -> tuple[object, ...]:
    """The columns of `_SUBMIT_BATCH`, without None: an array of nothing else would have no type."""
    s = entry.submission
    return (
        s.run_id, s.thread_id, s.thread, s.principal, s.previous_run_id or s.run_id, s.agent, s.queue, s.priority,
        s.created_at, s.timeout_seconds, s.background, s.store, s.tool_items.value, s.idempotency_key or _NO_KEY,
        s.request_digest or _NO_DIGEST, s.title, entry.request, entry.log.last_seq, entry.log.data,
        s.expire_after_seconds or 0, s.traceparent or _NO_TRACE,
    )  # fmt: skip


def _values(entry: Entry) -> dict[str, object]:
    submission = entry.submission
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
        "idempotency_key": submission.idempotency_key,
        "request_digest": submission.request_digest,
        "title": submission.title,
        "traceparent": submission.traceparent,
        "request": entry.request,
        "last_seq": entry.log.last_seq,
        "data": entry.log.data,
        "expire_after": submission.expire_after_seconds,
        "alone": submission.multitask_strategy is MultitaskStrategy.REJECT,
    }
