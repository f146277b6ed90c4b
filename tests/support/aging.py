"""Runs that ended long ago, and what is left of runs in the database."""

from __future__ import annotations

from collections.abc import Collection
from uuid import UUID

from outlast.shared.connections import Database
from outlast.shared.domain.runs import Run
from tests.support.runs import an_append, append, claimed_one, finish, submitted

TABLES = ("threads", "runs", "run_leases", "run_heads", "run_events", "run_saves")
CHECKPOINT_TABLES = ("checkpoints", "checkpoint_blobs", "checkpoint_writes")


async def finished(database: Database, *, days: float = 0, events: int = 1, **changes: object) -> Run:
    """A run with so many events between its first and its last, which ended so long ago."""
    await submitted(database, **changes)
    run = await claimed_one(database)
    last = run.last_seq
    if events:
        await append(database, an_append(run, last + 1, events))
    assert await finish(database, run, last + events + 1)
    await age(database, [run.run_id], days)
    return run


async def age(database: Database, run_ids: Collection[UUID], days: float) -> None:
    """As if these runs had ended so many days earlier."""
    await database.run(
        lambda c: c.execute(
            "UPDATE runs SET finished_at = finished_at - make_interval(secs => %s) WHERE id = ANY(%s)",
            (days * 86_400, list(run_ids)),
        )
    )


async def rows(database: Database, *tables: str) -> dict[str, int]:
    """How many rows each of these tables has; only those that have any."""
    counts: dict[str, int] = {}
    for table in tables or (*TABLES, *CHECKPOINT_TABLES):
        cursor = await database.run(lambda c, table=table: c.execute(f"SELECT count(*) FROM {table}".encode()))
        row = await cursor.fetchone()
        counts[table] = row[0] if row else 0
    return {table: count for table, count in counts.items() if count}


async def left(database: Database, *runs: Run) -> list[bool]:
    """Which of these runs are still there."""
    cursor = await database.run(
        lambda c: c.execute("SELECT id FROM runs WHERE id = ANY(%s)", ([run.run_id for run in runs],))
    )
    there = {row[0] for row in await cursor.fetchall()}
    return [run.run_id in there for run in runs]


# Not of pg_stat_activity, which a transaction reads once. A lock on a row names no database: its waiter's others do.
WAITING = """
SELECT count(*) FROM pg_locks w WHERE NOT w.granted AND EXISTS (
    SELECT FROM pg_locks h JOIN pg_database d ON d.oid = h.database
    WHERE h.pid = w.pid AND d.datname = current_database())
"""


async def somebody_waits(database: Database) -> bool:
    """Whether a statement waits for a lock."""
    cursor = await database.run(lambda c: c.execute(WAITING))
    row = await cursor.fetchone()
    return bool(row and row[0])
