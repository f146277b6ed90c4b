"""A principal's runs as a list: one range of one index, and nothing of their requests or answers."""

from __future__ import annotations

from uuid import UUID

from outlast.shared.connections import Connection
from outlast.shared.domain.runs import ListedRun, RunStatus

_LAST = UUID(int=2**128 - 1)


async def newest(
    connection: Connection, principal: str, *, limit: int, after: UUID | None = None, status: RunStatus | None = None
) -> list[ListedRun]:
    """Its runs, the latest first; only those that are older than ``after``, whether or not that one still exists."""
    cursor = await connection.execute(
        """SELECT r.id, r.agent, r.status, r.attempt, t.name, r.background, r.title, r.created_at, r.started_at,
                  r.finished_at
           FROM runs r JOIN threads t ON t.id = r.thread_id
           WHERE r.principal = %(principal)s AND r.id < %(before)s
           AND (%(status)s::text IS NULL OR r.status = %(status)s)
           ORDER BY r.id DESC LIMIT %(limit)s""",
        {"principal": principal, "before": after or _LAST, "status": status.value if status else None, "limit": limit},
        prepare=False,  # planned for each call: a plan for any status would have to suit the rarest
    )
    return [ListedRun(row[0], row[1], RunStatus(row[2]), *row[3:]) for row in await cursor.fetchall()]
