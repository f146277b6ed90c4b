"""How many clients wait for a run in the foreground. Each statement leaves runs that have ended alone."""

from __future__ import annotations

from uuid import UUID

from outlast.shared.connections import Connection

_ACTIVE = "status IN ('queued', 'in_progress') AND NOT background"


async def came(connection: Connection, run_id: UUID) -> None:
    await connection.execute(
        f"""UPDATE runs SET connections = least(connections + 1, 32767), abandoned_at = NULL
            WHERE id = %s AND {_ACTIVE}""",
        (run_id,),
    )


async def looked(connection: Connection, run_id: UUID) -> None:
    """The time without a client begins anew."""
    await connection.execute(
        f"UPDATE runs SET abandoned_at = now() WHERE id = %s AND abandoned_at IS NOT NULL AND {_ACTIVE}", (run_id,)
    )


async def left(connection: Connection, run_id: UUID) -> None:
    await connection.execute(
        f"""UPDATE runs SET connections = greatest(connections - 1, 0),
                   abandoned_at = CASE WHEN connections <= 1 THEN now() END
            WHERE id = %s AND {_ACTIVE}""",
        (run_id,),
    )
