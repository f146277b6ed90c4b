"""(g) Claims from a queue that grows."""

from __future__ import annotations

import time
from statistics import median

from bench.figures import Figure
from bench.stack import Stack
from outlast.infra.migrate import migrate, shipped
from outlast.shared.connections import Connection, Database, fixed
from outlast.shared.store import claims

DEPTHS = (100, 10_000, 100_000)
LIMITS = (1, 16)
CLAIMS = 60
_TABLES = ("threads", "runs", "run_leases", "run_heads", "run_events")
# Ready runs, each in a thread of its own, a hundred of each principal. The latest come first: no depth is measured on
# rows of which rolled back claims have left dead versions.
_FILL = """
WITH n AS (SELECT n, gen_random_uuid() AS id, gen_random_uuid() AS thread FROM generate_series(%s::int, %s::int) n),
t AS (INSERT INTO threads (id, principal, name) SELECT thread, 'p' || n / 100, thread::text FROM n RETURNING id),
r AS (INSERT INTO runs (id, principal, thread_id, agent, turn, ready, created_at, timeout_seconds, background, store,
                        tool_items, request)
      SELECT n.id, 'p' || n / 100, n.thread, 'burst', -n, true, now(), 3600, true, true, 'mcp_call',
             '{"input":"' || repeat('x', 950) || '"}' FROM n JOIN t ON t.id = n.thread RETURNING id)
INSERT INTO run_heads (run_id, last_seq) SELECT id, 1 FROM r
"""


async def claim(stack: Stack) -> list[Figure]:
    """One claim of one run, and of 16, from a queue of 100, 10,000 and 100,000, on one connection with a pinned plan.

    The tables are new and never analysed, so the plan cached for the short queue is what the long one gets. Every claim
    is rolled back; the time is that of the statement, without the commit.
    """
    database = Database(fixed(stack.postgres.url), schema="bench_claims", application="bench", pin_plan=True)
    await migrate(database, shipped())
    times: dict[tuple[int, int], float] = {}
    async with await database.connect(statement_timeout="0") as connection:
        for table in _TABLES:
            await connection.execute(f"ALTER TABLE {table} SET (autovacuum_enabled = false)".encode())
        filled = 0
        for depth in DEPTHS:
            await connection.execute(_FILL, (filled + 1, depth))
            filled = depth
            for limit in LIMITS:
                times[limit, depth] = await _median_of_claims(connection, limit)
    await stack.execute("DROP SCHEMA bench_claims CASCADE")
    return [figure for limit in LIMITS for figure in _figures(times, limit)]


def _figures(times: dict[tuple[int, int], float], limit: int) -> list[Figure]:
    shallow, deep = times[limit, DEPTHS[0]], times[limit, DEPTHS[-1]]
    figures = [Figure(f"claim of {limit}, {depth:,} queued", 1000 * times[limit, depth], "ms") for depth in DEPTHS]
    return [*figures, Figure(f"claim of {limit}, longest to shortest queue", deep / shallow, "x", at_most=2)]


async def _median_of_claims(connection: Connection, limit: int) -> float:
    seconds: list[float] = []
    for _ in range(CLAIMS):
        async with connection.transaction(force_rollback=True):
            began = time.monotonic()
            await claims.claim(connection, queues=["default"], limit=limit, owner="bench", lease_seconds=60)
            seconds.append(time.monotonic() - began)
    return median(seconds)
