"""What waits, what runs and who works, for people and monitors. Cheap and bounded however much waits.

An index says quickly which rows to count, but each has to be looked up in the table until it is vacuumed: counting a
million queued runs took 7 s. So each count ends at a limit; beyond it the planner's statistics give an estimate.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from outlast.shared.connections import Connection
from outlast.shared.domain.measures import Sample, Samples
from outlast.shared.wire import from_json

from .pinning import pin

COUNTED_MOST = 10_000
"""No more rows than these are counted for one number."""
_STATEMENT_SECONDS = 2  # rather no numbers than a database that is kept busy by whoever looks at it


@dataclass(slots=True)
class QueueState:
    """One queue. Counts end at COUNTED_MOST."""

    ready: int = 0
    waiting: int = 0
    """Queued, but not ready: an earlier run of the same thread is active, or a retry is to come later."""
    running: int = 0
    oldest_seconds: float = 0.0
    """The age of the oldest run that is ready, of the next COUNTED_MOST to be claimed."""


@dataclass(frozen=True, slots=True)
class WorkerState:
    """What a worker said of itself last."""

    owner: str
    host: str
    pid: int
    version: str
    queues: Sequence[str]
    up_seconds: float
    seen_seconds: float
    """How long ago it reported."""
    alive: bool
    resting: bool
    """It has nothing to do, and is silent until it has."""
    children: int
    slots: int
    running: int
    draining: bool
    drain_requested: bool
    oldest_seconds: float | None
    """How long it has had the run that it has had longest."""
    counters: dict[str, int]
    """Totals since it started."""
    samples: Samples = field(default_factory=Samples)
    """The same of what it measured."""


@dataclass(frozen=True, slots=True)
class Overview:
    queues: dict[str, QueueState]
    """Those in which runs are, and those that workers serve."""
    queued: int
    """Runs that wait, ready or not, in all queues."""
    exact: bool
    """Whether ``queued`` is counted; it is an estimate when a count ended at COUNTED_MOST."""
    running: int
    running_by_agent: dict[str, int]
    workers: list[WorkerState]
    """Those that reported within the last minute or so and did not end by themselves."""
    submitted: int
    """Runs that were accepted within the last ``submitted_seconds``; the count ends at COUNTED_MOST."""
    submitted_seconds: float
    notification_queue: float = 0.0
    """How full the server's queue of notifications is, from 0 to 1: full, no run can append events."""


# The names come from jumps through the index, the numbers from its first entries, in the order of claims.
_READY = """
WITH RECURSIVE q AS (
    (SELECT queue FROM runs WHERE status = 'queued' AND ready ORDER BY queue, priority, turn, created_at LIMIT 1)
    UNION ALL
    SELECT n.queue FROM q CROSS JOIN LATERAL (
        SELECT queue FROM runs WHERE status = 'queued' AND ready AND queue > q.queue
        ORDER BY queue, priority, turn, created_at LIMIT 1) n)
SELECT q.queue, c.ready, c.oldest_seconds
FROM q CROSS JOIN LATERAL (
    SELECT count(*) AS ready, greatest(0, extract(epoch FROM now() - min(created_at)))::float8 AS oldest_seconds FROM (
        SELECT created_at FROM runs WHERE queue = q.queue AND status = 'queued' AND ready
        ORDER BY queue, priority, turn, created_at LIMIT %(most)s) r) c
"""
_WAITING = """
SELECT queue, count(*) FROM (
    SELECT queue FROM runs WHERE status = 'queued' AND NOT ready ORDER BY thread_id, created_at LIMIT %(most)s) w
GROUP BY queue
"""
_RUNNING = """
SELECT queue, agent, count(*) FROM (
    SELECT queue, agent FROM runs WHERE status = 'in_progress' ORDER BY principal, agent LIMIT %(most)s) r
GROUP BY queue, agent ORDER BY agent, queue
"""
# Ids begin with the time in milliseconds, so that a time is a place in the primary key.
_SUBMITTED = """
SELECT count(*) FROM (
    SELECT id FROM runs WHERE id >= (
        lpad(to_hex((extract(epoch FROM now() - make_interval(secs => %(seconds)s)) * 1000)::bigint), 12, '0')
        || repeat('0', 20))::uuid
    ORDER BY id LIMIT %(most)s) s
"""
# What the planner would expect in this index: rows a page at the last vacuum or analyze, times its pages now.
ESTIMATED_QUEUED = """
SELECT (pg_relation_size(oid) / current_setting('block_size')::int
        * CASE WHEN relpages > 0 AND reltuples > 0 THEN reltuples / relpages ELSE 100 END)::bigint
FROM pg_class WHERE oid = 'runs_backlog'::regclass
"""
_WORKERS = """
SELECT owner, host, pid, version, queues, extract(epoch FROM now() - started_at)::float8,
       greatest(0, extract(epoch FROM now() - seen_at))::float8,
       coalesce(resting_until, seen_at) > now() - make_interval(secs => %(alive)s), resting_until IS NOT NULL,
       children, slots, running, draining,
       drain_requested_at IS NOT NULL, extract(epoch FROM now() - l.claimed_at)::float8, counters, samples
FROM workers LEFT JOIN (SELECT owner, min(claimed_at) AS claimed_at FROM run_leases GROUP BY owner) l USING (owner)
ORDER BY host, pid LIMIT %(most)s
"""


_NOTIFICATION_QUEUE = "SELECT pg_notification_queue_usage()"


async def read(connection: Connection, *, submitted_seconds: float, beat_seconds: float) -> Overview:
    """Everything in one round trip. A worker lives that has reported within five seconds or three beats."""
    values = {"most": COUNTED_MOST, "seconds": submitted_seconds, "alive": _silent_seconds(beat_seconds)}
    async with connection.transaction(), connection.pipeline():
        await pin(connection, statement_timeout=f"{_STATEMENT_SECONDS}s")
        statements = (_READY, _WAITING, _RUNNING, _SUBMITTED, ESTIMATED_QUEUED, _WORKERS, _NOTIFICATION_QUEUE)
        cursors = [await connection.execute(statement, values) for statement in statements]
        ready, waiting, running, submitted, estimate, serving, notify = [await cursor.fetchall() for cursor in cursors]
    queues, by_agent = _queues(ready, waiting, running, serving)
    counted = sum(queue.ready + queue.waiting for queue in queues.values())
    exact = max([sum(row[1] for row in waiting), *(row[1] for row in ready)]) < COUNTED_MOST
    return Overview(
        queues=queues,
        queued=counted if exact else max(counted, estimate[0][0]),
        exact=exact,
        running=sum(by_agent.values()),
        running_by_agent=by_agent,
        workers=[_worker(row) for row in serving],
        submitted=submitted[0][0],
        submitted_seconds=submitted_seconds,
        notification_queue=notify[0][0],
    )


async def workers(connection: Connection, *, beat_seconds: float) -> list[WorkerState]:
    """The workers alone."""
    values = {"most": COUNTED_MOST, "alive": _silent_seconds(beat_seconds)}
    cursor = await connection.execute(_WORKERS, values)
    return [_worker(row) for row in await cursor.fetchall()]


def _silent_seconds(beat_seconds: float) -> float:
    return max(5.0, 3 * beat_seconds)


def _worker(row: tuple[Any, ...]) -> WorkerState:
    samples: dict[str, list[dict[str, Any]]] = from_json(row[-1])
    measured = {name: [Sample(**sample) for sample in found] for name, found in samples.items()}
    return WorkerState(*row[:-2], counters=from_json(row[-2]), samples=measured)


Rows = Sequence[tuple[Any, ...]]


def _queues(ready: Rows, waiting: Rows, running: Rows, serving: Rows) -> tuple[dict[str, QueueState], dict[str, int]]:
    """The queues, and how many runs of each agent are running."""
    queues = {name: QueueState() for worker in serving for name in worker[4]}
    by_agent: dict[str, int] = {}
    for name, count, oldest_seconds in ready:
        queues[name] = QueueState(ready=count, oldest_seconds=oldest_seconds)
    for name, count in waiting:
        queues.setdefault(name, QueueState()).waiting = count
    for name, agent, count in running:
        queues.setdefault(name, QueueState()).running += count
        by_agent[agent] = by_agent.get(agent, 0) + count
    return dict(sorted(queues.items())), by_agent
