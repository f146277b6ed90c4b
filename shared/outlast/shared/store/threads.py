"""Threads: which runs are of one conversation."""

from __future__ import annotations

from collections.abc import Collection
from uuid import UUID

from outlast.shared.connections import Connection

ACTIVE = "(a.status = 'in_progress' OR (a.status = 'queued' AND (a.ready OR a.attempt > 0)))"
"""Of a run ``a``: no later one of its thread may begin. As in the index `one_active_run_per_thread`."""


async def runs_of_thread(
    connection: Connection, thread_name: str, principal: str, run_ids: Collection[UUID]
) -> set[UUID]:
    """Which of these runs belong to this thread of the principal's."""
    cursor = await connection.execute(
        """SELECT r.id FROM runs r JOIN threads t ON t.id = r.thread_id
           WHERE r.id = ANY(%b::uuid[]) AND t.principal = %s AND t.name = %s""",
        (list(run_ids), principal, thread_name),
        prepare=True,
    )
    return {row[0] for row in await cursor.fetchall()}


async def earlier_request(connection: Connection, run_id: UUID, previous_id: UUID | None) -> str | None:
    """Return the request, as JSON, of the run that this one goes on from: the one it names, or its thread's last."""
    cursor = await connection.execute(
        """SELECT e.request FROM runs r JOIN runs e ON e.thread_id = r.thread_id
           WHERE r.id = %(run_id)s AND e.started_at IS NOT NULL
           AND (e.id = %(previous)s OR %(previous)s::uuid IS NULL AND e.created_at < r.created_at)
           ORDER BY e.created_at DESC LIMIT 1""",
        {"run_id": run_id, "previous": previous_id},
    )
    row = await cursor.fetchone()
    return row[0] if row else None


async def interrupted_for(connection: Connection, run_id: UUID) -> list[UUID]:
    """The other runs of this run's thread that are to end."""
    cursor = await connection.execute(
        """SELECT o.id FROM runs r JOIN runs o ON o.thread_id = r.thread_id AND o.id <> r.id
           WHERE r.id = %s AND o.status = 'in_progress' AND o.cancel_requested_at IS NOT NULL""",
        (run_id,),
    )
    return [row[0] for row in await cursor.fetchall()]
