"""Leases: the time-bounded right of an attempt to write its run. All times are the database's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from uuid import UUID

from outlast.shared.connections import Connection
from outlast.shared.domain.runs import Lease


@dataclass(frozen=True, slots=True)
class Renewal:
    """What a heartbeat learned: the leases still held, and those of them whose run somebody wants cancelled."""

    held: frozenset[Lease]
    cancelled: frozenset[Lease]


_RENEW_LOCK_TIMEOUT = "300ms"
_RENEW = """
WITH mine AS MATERIALIZED (
    SELECT l.run_id FROM run_leases l
    JOIN unnest(%b::uuid[], %b::int[]) AS m(run_id, attempt) ON m.run_id = l.run_id AND m.attempt = l.attempt
    ORDER BY l.run_id FOR NO KEY UPDATE OF l),
renewed AS (
    UPDATE run_leases SET lease_until = now() + make_interval(secs => %s)
    WHERE run_id = ANY(ARRAY(SELECT run_id FROM mine)) RETURNING run_id, attempt)
SELECT r.id, renewed.attempt, r.cancel_requested_at IS NOT NULL FROM renewed JOIN runs r ON r.id = renewed.run_id
"""


async def renew(connection: Connection, leases: Sequence[Lease], *, lease_seconds: float) -> Renewal:
    """Renew these leases in one statement. Guarded by the attempt, not by time: the late, not replaced, go on.

    It waits for checkpoints that are being written, but not for long: one that hangs must not end all other leases.
    """
    values = ([lease.run_id for lease in leases], [lease.attempt for lease in leases], lease_seconds)
    async with connection.pipeline():  # one Sync: one transaction, which the setting ends with
        # A pinned plan may not sort, and so would look through all leases for each: 0.2 s for a thousand.
        await connection.execute(
            "SELECT set_config('lock_timeout', %s, true), set_config('enable_sort', 'on', true), "
            "set_config('jit', 'off', true)",
            (_RENEW_LOCK_TIMEOUT,),
            prepare=True,
        )
        cursor = await connection.execute(_RENEW, values, prepare=True)
    rows = [(Lease(run_id, attempt), cancel) for run_id, attempt, cancel in await cursor.fetchall()]
    return Renewal(frozenset(lease for lease, _ in rows), frozenset(lease for lease, cancel in rows if cancel))


# A run that goes back to the queue keeps its turn, so it is next. Runs are locked in the order in which `d` gives them,
# each found by its key: a join that is asked for that order may read all runs in it.
REQUEUE = """
r AS MATERIALIZED (
    SELECT d.run_id AS id FROM d CROSS JOIN LATERAL (
        SELECT FROM runs WHERE id = d.run_id AND attempt = d.attempt AND status = 'in_progress'
        FOR NO KEY UPDATE {skip}) held),
l AS (
    DELETE FROM run_leases USING d WHERE run_leases.run_id = d.run_id AND run_leases.attempt = d.attempt
    AND run_leases.run_id = ANY(ARRAY(SELECT id FROM r)) RETURNING run_leases.run_id)
UPDATE runs SET status = 'queued', ready = true, charged_attempts = charged_attempts + %(charge)s::int,
       last_cause = CASE WHEN %(charge)s::int = 1 OR charged_attempts = 0 THEN %(cause)s ELSE last_cause END{also}
WHERE id = ANY(ARRAY(SELECT run_id FROM l)) RETURNING id
"""
_RELEASE = """
WITH d AS (
    SELECT * FROM unnest(%(run_ids)b::uuid[], %(attempts)b::int[], %(refunds)b::float8[])
    AS d(run_id, attempt, refund)),
""" + REQUEUE.format(
    skip="",
    also=", deadline_at = deadline_at + make_interval(secs => (SELECT refund FROM d WHERE d.run_id = runs.id))",
)
_NO_REFUNDS: Mapping[Lease, float] = MappingProxyType({})


async def release(
    connection: Connection,
    leases: Sequence[Lease],
    *,
    cause: str,
    charge: bool = False,
    refunds: Mapping[Lease, float] = _NO_REFUNDS,
) -> list[UUID]:
    """Hand runs back to the head of the queue. Returns those that were still held.

    ``charge`` counts the attempt towards the runs' limit: it ended with the process it ran in. ``refunds`` are seconds
    by which deadlines are put off.
    """
    leases = sorted(leases, key=lambda lease: lease.run_id.bytes)
    values = {
        "run_ids": [lease.run_id for lease in leases],
        "attempts": [lease.attempt for lease in leases],
        "cause": cause,
        "charge": int(charge),
        "refunds": [refunds.get(lease, 0.0) for lease in leases],
    }
    cursor = await connection.execute(_RELEASE, values)
    return [row[0] for row in await cursor.fetchall()]


async def owned_by(connection: Connection, owner: str) -> list[Lease]:
    """The leases that the database thinks this owner holds."""
    cursor = await connection.execute("SELECT run_id, attempt FROM run_leases WHERE owner = %s", (owner,))
    return [Lease(*row) for row in await cursor.fetchall()]


@dataclass(frozen=True, slots=True)
class Holder:
    """The worker that executes a run."""

    owner: str
    """``host:pid:…``"""
    attempt: int
    seconds_left: float
    """Until its lease ends; below 0 when it has ended."""

    @property
    def pid(self) -> int:
        return int(self.owner.rsplit(":", 2)[1])


async def holder(connection: Connection, run_id: UUID) -> Holder | None:
    """None while no worker has the run."""
    cursor = await connection.execute(
        """SELECT owner, attempt, extract(epoch FROM lease_until - clock_timestamp())::float8
           FROM run_leases WHERE run_id = %s""",
        (run_id,),
    )
    row = await cursor.fetchone()
    return Holder(*row) if row else None
