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


async def interrupted_for(connection: Connection, run_id: UUID) -> list[UUID]:
    """The other runs of this run's thread that are to end."""
    cursor = await connection.execute(
        """SELECT o.id FROM runs r JOIN runs o ON o.thread_id = r.thread_id AND o.id <> r.id
           WHERE r.id = %s AND o.status = 'in_progress' AND o.cancel_requested_at IS NOT NULL""",
        (run_id,),
    )
    return [row[0] for row in await cursor.fetchall()]
