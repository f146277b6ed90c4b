"""Long queues made in one statement, and what a statement does to a table."""

from __future__ import annotations

from outlast.shared.connections import Connection


async def fill(connection: Connection, count: int, principal: str = "busy") -> None:
    """That many ready runs, as if submitted one after the other, each in a thread of its own."""
    await connection.execute(
        """WITH t AS (INSERT INTO threads (id, principal, name)
                      SELECT gen_random_uuid(), %(principal)s, n::text FROM generate_series(1, %(count)s) n
                      RETURNING id, name),
           r AS (INSERT INTO runs (id, principal, thread_id, agent, turn, ready, created_at, timeout_seconds,
                                   background, store, tool_items, request)
                 SELECT gen_random_uuid(), %(principal)s, id, 'test', name::int, true, now(), 60, true, true, 'hidden',
                        '{"input": "x"}' FROM t RETURNING id)
           INSERT INTO run_heads (run_id, last_seq) SELECT id, 1 FROM r""",
        {"principal": principal, "count": count},
    )


async def work_on(connection: Connection, table: str) -> tuple[int, int]:
    """Sequential scans of the table, and rows fetched by index, so far."""
    await connection.execute("SELECT pg_stat_force_next_flush()")
    cursor = await connection.execute(
        "SELECT seq_scan, idx_tup_fetch FROM pg_stat_user_tables WHERE schemaname = 'outlast' AND relname = %s",
        (table,),
    )
    row = await cursor.fetchone()
    assert row is not None
    return row
