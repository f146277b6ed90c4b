"""Long queues made in one statement, and what a statement does to a table."""

from __future__ import annotations

import pytest

from outlast.shared.connections import Connection

FIRST_THAT_TELLS_AT_ONCE = 150_000


async def fill(connection: Connection, count: int, principal: str = "busy") -> None:
    """That many ready runs, as if submitted one after the other, each in a thread of its own."""
    # However busy the machine is; both hold for this piece of work only.
    connection.answer_seconds = 65.0
    async with connection.transaction():
        await connection.execute("SELECT set_config('statement_timeout', '60s', true)")
        await _insert(connection, count, principal)


async def _insert(connection: Connection, count: int, principal: str) -> None:
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
    """Sequential scans of the table, and rows fetched by index, so far. Skips the test where they are told late."""
    if connection.info.server_version < FIRST_THAT_TELLS_AT_ONCE:
        pytest.skip("Postgres 14 tells its statistics of tables half a second later")
    await connection.execute("SELECT pg_stat_force_next_flush()")
    cursor = await connection.execute(
        "SELECT seq_scan, idx_tup_fetch FROM pg_stat_user_tables WHERE schemaname = 'outlast' AND relname = %s",
        (table,),
    )
    row = await cursor.fetchone()
    assert row is not None
    return row


async def finish_many(connection: Connection, count: int) -> None:
    """That many runs like the only one there is, which has ended: half of them in its thread, the others alone."""
    columns = """principal, agent, status, ready, attempt, timeout_seconds, deadline_at, created_at, started_at,
                 finished_at, background, store, tool_items, request, response"""
    await connection.execute(
        f"""WITH t AS (INSERT INTO threads (id, principal, name)
                       SELECT gen_random_uuid(), principal, 'past ' || n
                       FROM threads, generate_series(1, %(half)s::int) n RETURNING id),
            r AS (INSERT INTO runs (id, thread_id, {columns})
                  SELECT gen_random_uuid(), t.id, {columns} FROM runs, t
                  UNION ALL
                  SELECT gen_random_uuid(), thread_id, {columns} FROM runs, generate_series(1, %(half)s::int)
                  RETURNING id),
            h AS (INSERT INTO run_heads (run_id, last_seq, closed) SELECT id, 3, true FROM r RETURNING run_id)
            INSERT INTO run_events (run_id, first_seq, last_seq, data) SELECT run_id, 0, 3, 'x' FROM h""".encode(),
        {"half": count // 2},
    )
