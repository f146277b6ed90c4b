"""Runs that are to end although no attempt ends them: found, and taken from whoever has them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import LiteralString
from uuid import UUID

from outlast.shared.connections import Connection
from outlast.shared.domain.overdue import EndReason, Overdue
from outlast.shared.domain.runs import Lease, RunStatus

from .claims import TAKE

ENDING = "ending"
"""The owner of the lease of a run that is being ended."""

_ACTIVE = "status IN ('queued', 'in_progress')"
# Who executes a run has the grace to end it; one that waits is ended at once. Each branch reads one small index.
_FIND = f"""
(SELECT id, principal, attempt, 'cancelled' FROM runs
 WHERE cancel_requested_at IS NOT NULL AND {_ACTIVE}
 AND (status = 'queued' OR cancel_requested_at <= now() - make_interval(secs => %(grace)s))
 ORDER BY cancel_requested_at LIMIT %(limit)s)
UNION ALL
(SELECT id, principal, attempt, 'task_timeout' FROM runs
 WHERE deadline_at <= now() AND {_ACTIVE} AND cancel_requested_at IS NULL
 AND (status = 'queued' OR deadline_at <= now() - make_interval(secs => %(grace)s))
 ORDER BY deadline_at LIMIT %(limit)s)
UNION ALL
(SELECT id, principal, attempt, 'expired_in_queue' FROM runs
 WHERE expires_at <= now() AND status = 'queued' AND attempt = 0 AND cancel_requested_at IS NULL
 ORDER BY expires_at LIMIT %(limit)s)
"""
# A new attempt that nobody executes: what the one before still writes is fenced off. Not while another process is
# ending the run, or each would take it from the other for ever.
_SEIZE = f"""
WITH c AS MATERIALIZED (
    SELECT id FROM runs WHERE id = %(run_id)s AND attempt = %(attempt)s AND {_ACTIVE} AND NOT EXISTS (
        SELECT 1 FROM run_leases l WHERE l.run_id = runs.id AND l.owner = '{ENDING}' AND l.lease_until > now())
    FOR NO KEY UPDATE),
{TAKE}
"""
_CANCEL_ABANDONED = f"""
UPDATE runs SET cancel_requested_at = now() WHERE id = ANY(ARRAY(
    SELECT id FROM runs WHERE abandoned_at <= now() - make_interval(secs => %(after)s) AND {_ACTIVE}
    AND cancel_requested_at IS NULL ORDER BY abandoned_at LIMIT %(limit)s FOR NO KEY UPDATE SKIP LOCKED))
RETURNING id
"""
PLANNED: Mapping[str, LiteralString] = {
    **dict.fromkeys(("runs_cancelled", "runs_deadline", "runs_expiring"), _FIND),
    "runs_abandoned": _CANCEL_ABANDONED,
}
"""As in `plans.PLANNED`."""


async def find(connection: Connection, *, grace_seconds: float, limit: int) -> list[Overdue]:
    """Runs that are to end now, of each kind at most so many.

    ``grace_seconds``: how long the worker that executes one has to end it by itself.
    """
    cursor = await connection.execute(_FIND, {"grace": grace_seconds, "limit": limit})
    return [Overdue(row[0], row[1], row[2], EndReason(row[3])) for row in await cursor.fetchall()]


async def seize(connection: Connection, overdue: Overdue, *, lease_seconds: float) -> Lease | None:
    """Take a begun run from whoever has it. None: it is not as it was found, or is being ended already."""
    values = {"run_id": overdue.run_id, "attempt": overdue.attempt, "owner": ENDING, "lease_seconds": lease_seconds}
    cursor = await connection.execute(_SEIZE, values)
    row = await cursor.fetchone()
    return Lease(*row) if row else None


async def cancel_abandoned(connection: Connection, *, after_seconds: float, limit: int) -> list[UUID]:
    """Ask for the end of runs in the foreground which nobody has waited for, for so long. Returns them."""
    cursor = await connection.execute(_CANCEL_ABANDONED, {"after": after_seconds, "limit": limit})
    return [row[0] for row in await cursor.fetchall()]


@dataclass(frozen=True, slots=True)
class Asked:
    """A run whose end has been asked for, as it is then."""

    status: RunStatus
    attempt: int


async def request_cancel(connection: Connection, run_id: UUID, principal: str) -> Asked | None:
    """Ask for the end of a run; it holds whatever happens then. None: it has ended, or is gone."""
    cursor = await connection.execute(
        f"""UPDATE runs SET cancel_requested_at = coalesce(cancel_requested_at, now())
            WHERE id = %s AND principal = %s AND {_ACTIVE} RETURNING status, attempt""",
        (run_id, principal),
    )
    row = await cursor.fetchone()
    return Asked(RunStatus(row[0]), row[1]) if row else None
