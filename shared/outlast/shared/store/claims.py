"""Claiming: the best ready runs of a queue become in progress, each with a new attempt, its lease and the fence."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, LiteralString

from outlast.shared.connections import Connection
from outlast.shared.domain.runs import Lease
from outlast.shared.wire import to_json


@dataclass(frozen=True, slots=True)
class RunningLimits:
    """How many runs may be in progress at once, on all workers together. None and missing: as many as there are."""

    per_principal: int | None = None
    per_agent: Mapping[str, int] = field(default_factory=dict[str, int])
    """By name; ``*`` for each of the others."""

    def __bool__(self) -> bool:
        return self.per_principal is not None or bool(self.per_agent)


TAKE = """
r AS (
    UPDATE runs SET status = 'in_progress', attempt = attempt + 1, started_at = coalesce(started_at, now()),
           deadline_at = coalesce(deadline_at, now() + make_interval(secs => timeout_seconds))
    WHERE id = ANY(ARRAY(SELECT id FROM c)) RETURNING id, attempt, priority, turn, created_at),
l AS (
    INSERT INTO run_leases (run_id, attempt, owner, lease_until)
    SELECT id, attempt, %(owner)s, now() + make_interval(secs => %(lease_seconds)s) FROM r ORDER BY id
    ON CONFLICT (run_id) DO UPDATE
    SET attempt = EXCLUDED.attempt, owner = EXCLUDED.owner, lease_until = EXCLUDED.lease_until, claimed_at = now()),
h AS (
    UPDATE run_heads SET attempt = r.attempt FROM r WHERE run_heads.run_id = r.id RETURNING run_heads.run_id)
SELECT r.id, r.attempt FROM r JOIN h ON h.run_id = r.id ORDER BY r.priority, r.turn, r.created_at, r.id
"""
"""What a claim does with the runs whose ids are in ``c``: a new attempt of each, its lease and the fence."""
_CLAIM = """
WITH c AS MATERIALIZED (
    SELECT id FROM runs WHERE queue = %(queue)s AND status = 'queued' AND ready {which}
    ORDER BY queue, priority, turn, created_at LIMIT %(limit)s FOR NO KEY UPDATE SKIP LOCKED),
{take}
"""
_CLAIM_ANY = _CLAIM.format(which="", take=TAKE)
_CLAIM_BEGUN = _CLAIM.format(which="AND attempt > 0", take=TAKE)
# Under limits the head of the queue may be what nobody may take, however long it is. So the queue is read by principal
# and agent: for each pair that has something ready its first runs, as many as both limits leave room for.
_CLAIM_WITHIN_LIMITS = f"""
WITH RECURSIVE pairs AS (
    (SELECT principal, agent FROM runs WHERE queue = %(queue)s AND status = 'queued' AND ready
     ORDER BY queue, principal, agent LIMIT 1)
    UNION ALL
    SELECT n.principal, n.agent FROM pairs p CROSS JOIN LATERAL (
        SELECT principal, agent FROM runs WHERE queue = %(queue)s AND status = 'queued' AND ready
        AND (principal, agent) > (p.principal, p.agent) ORDER BY queue, principal, agent LIMIT 1) n),
running AS MATERIALIZED (
    SELECT principal, agent, count(*) AS runs FROM runs WHERE status = 'in_progress' GROUP BY principal, agent),
room AS MATERIALIZED (
    SELECT p.principal, p.agent,
           %(per_principal)s::int - coalesce(
               (SELECT sum(runs) FROM running WHERE running.principal = p.principal), 0)::int AS of_principal,
           coalesce(%(per_agent)s::jsonb -> p.agent, %(per_agent)s::jsonb -> '*')::int - coalesce(
               (SELECT sum(runs) FROM running WHERE running.agent = p.agent), 0)::int AS of_agent
    FROM pairs p),
candidates AS (
    SELECT q.id, q.priority, q.turn, q.created_at, room.of_principal, room.of_agent,
           row_number() OVER (PARTITION BY room.principal ORDER BY q.priority, q.turn, q.created_at) AS in_principal,
           row_number() OVER (PARTITION BY room.agent ORDER BY q.priority, q.turn, q.created_at) AS in_agent
    FROM room CROSS JOIN LATERAL (
        SELECT id, priority, turn, created_at FROM runs
        WHERE queue = %(queue)s AND principal = room.principal AND agent = room.agent AND status = 'queued' AND ready
        ORDER BY queue, principal, agent, priority, turn, created_at
        LIMIT greatest(least(room.of_principal, room.of_agent, %(limit)s), 0)) q),
chosen AS (
    SELECT id FROM candidates
    WHERE in_principal <= coalesce(of_principal, in_principal) AND in_agent <= coalesce(of_agent, in_agent)
    ORDER BY priority, turn, created_at, id LIMIT %(limit)s),
c AS MATERIALIZED (
    SELECT id FROM runs WHERE id = ANY(ARRAY(SELECT id FROM chosen)) AND status = 'queued' AND ready
    ORDER BY id FOR NO KEY UPDATE SKIP LOCKED),
{TAKE}
"""
_NO_LIMITS = RunningLimits()
PLANNED: Mapping[str, LiteralString] = {
    "runs_claim": _CLAIM_ANY,
    "runs_begun": _CLAIM_BEGUN,
    "runs_ready_by_principal": _CLAIM_WITHIN_LIMITS,
}
"""The index that a statement must use -> the statement, for `outlast doctor`."""


async def claim(
    connection: Connection,
    *,
    queues: Sequence[str],
    limit: int,
    owner: str,
    lease_seconds: float,
    running_limits: RunningLimits = _NO_LIMITS,
    begun: bool = False,
) -> list[Lease]:
    """Take the best ready runs of these queues, the first queue's first.

    Fewer than ``limit``: there are no more now. Under running limits there may be more until it takes none.
    ``begun``: only runs that have had an attempt, whatever the limits are.
    """
    taken: list[Lease] = []
    statement = _CLAIM_BEGUN if begun else _CLAIM_ANY
    for queue in queues:  # one index range each: a list of queues in one statement could not be read in order
        if len(taken) < limit:
            values: dict[str, Any] = {
                "queue": queue,
                "limit": limit - len(taken),
                "owner": owner,
                "lease_seconds": lease_seconds,
                "per_principal": running_limits.per_principal,
                "per_agent": to_json(running_limits.per_agent),
            }
            if running_limits and not begun:
                taken += await _claim_within(connection, values)
            else:
                taken += await _claim(connection, statement, values)
    return taken


async def _claim(connection: Connection, statement: LiteralString, values: dict[str, Any]) -> list[Lease]:
    cursor = await connection.execute(statement, values, prepare=True)
    return [Lease(*row) for row in await cursor.fetchall()]


async def _claim_within(connection: Connection, values: dict[str, Any]) -> list[Lease]:
    """One claim at a time, or two would count the same room. The lock is taken before the statement's snapshot is."""
    async with connection.pipeline():
        await connection.execute("BEGIN")
        await connection.execute("SELECT pg_advisory_xact_lock(hashtextextended(current_schema() || '.claim', 0))")
        cursor = await connection.execute(_CLAIM_WITHIN_LIMITS, values, prepare=True)
        await connection.execute("COMMIT")
    return [Lease(*row) for row in await cursor.fetchall()]
