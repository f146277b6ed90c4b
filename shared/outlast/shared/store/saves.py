"""What an attempt keeps for the next one beside the log."""

from __future__ import annotations

from dataclasses import dataclass
from uuid import UUID

from outlast.shared.connections import Connection
from outlast.shared.domain.runs import Lease


@dataclass(frozen=True, slots=True)
class Saved:
    kept_seq: int
    """What had been said up to this number is not said again."""
    values: str
    """JSON."""


async def save(connection: Connection, lease: Lease, saved: Saved) -> bool:
    """Replace what was saved before. False: the run is not this attempt's any more."""
    cursor = await connection.execute(
        """
        WITH l AS MATERIALIZED (SELECT run_id FROM run_leases WHERE run_id = %s AND attempt = %s FOR SHARE)
        INSERT INTO run_saves (run_id, kept_seq, saved) SELECT run_id, %s, %s FROM l
        ON CONFLICT (run_id) DO UPDATE SET kept_seq = EXCLUDED.kept_seq, saved = EXCLUDED.saved
        RETURNING run_id
        """,
        (lease.run_id, lease.attempt, saved.kept_seq, saved.values),
        prepare=True,
    )
    return await cursor.fetchone() is not None


async def read(connection: Connection, run_id: UUID) -> Saved | None:
    cursor = await connection.execute("SELECT kept_seq, saved FROM run_saves WHERE run_id = %s", (run_id,))
    row = await cursor.fetchone()
    return Saved(*row) if row else None
