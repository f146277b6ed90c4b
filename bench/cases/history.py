"""(j) What finished runs in the tables cost those that come, and what it costs to remove them."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from statistics import median

from bench import load
from bench.figures import Figure, percentiles
from bench.processes import in_own_process
from bench.stack import PORTS, Stack
from outlast.infra import checkpoint_tables
from outlast.infra.migrate import migrate, shipped
from outlast.shared.connections import PINNED_PLAN, Connection, Database, fixed
from outlast.shared.doorbell import Doorbell
from outlast.shared.rest import Rest
from outlast.shared.settings import load as load_settings
from outlast.shared.store import claims
from outlast.shared.sweep import Sweep

FINISHED = 100_000
POLLED = 100
ROUNDS = 15
SECONDS = 1.0
CLIENTS = 8
REPEATS = 100
PER_SECOND = 500 / 60
CALM_SECONDS = 60.0
LIMIT = 1.10
SCHEMAS = ("bench_empty", "bench_full")

# Runs that ended over the last 30 days, each in a thread of its own: 1 KB asked, 1.5 KB answered, ten events in a row.
_FILL = """
WITH n AS (
    SELECT n, now() - n * interval '30 days' / %(count)s AS at, gen_random_uuid() AS thread
    FROM generate_series(1, %(count)s::int) n),
i AS (SELECT n.*, (lpad(to_hex((extract(epoch FROM at) * 1000)::bigint), 12, '0') || '7'
                   || substr(md5(n::text), 1, 3) || '8' || substr(md5(n::text), 4, 15))::uuid AS id FROM n),
t AS (INSERT INTO threads (id, principal, name) SELECT thread, 'anonymous', 'conv_' || thread FROM i RETURNING id),
r AS (INSERT INTO runs (id, principal, thread_id, agent, status, turn, ready, attempt, timeout_seconds, deadline_at,
                        created_at, started_at, finished_at, background, store, tool_items, request, response)
      SELECT i.id, 'anonymous', t.id, 'burst', 'completed', 1, true, 1, 3600, at, at, at, at, true, true, 'mcp_call',
             '{"input":"' || prose(n, 30) || '"}', '{"id":"x","text":"' || prose(n, 45) || '"}'
      FROM i JOIN t ON t.id = i.thread RETURNING id),
h AS (INSERT INTO run_heads (run_id, attempt, last_seq, closed) SELECT id, 1, 9, true FROM r RETURNING run_id)
INSERT INTO run_events (run_id, first_seq, last_seq, data)
SELECT run_id, 0, 9, '{"type":"x","delta":"' || prose(n, 60) || '"}' FROM h JOIN i ON i.id = h.run_id
"""
# So many times 32 characters which do not compress to nothing.
_PROSE = """
CREATE FUNCTION prose(seed int, count int) RETURNS text LANGUAGE sql AS
$$SELECT string_agg(md5(seed || '.' || k), '') FROM generate_series(1, count) k$$
"""


async def keep(stack: Stack) -> list[Figure]:
    """Two schemas in one Postgres, one with 100,000 finished runs: the same work in both, by turns.

    Then half of these are removed by `outlast prune` while 500 runs a minute are submitted.
    """
    empty, full = (Database(fixed(stack.postgres.url), schema=schema, application="bench") for schema in SCHEMAS)
    for database, count in ((empty, POLLED), (full, FINISHED)):
        await migrate(database, shipped())
        await checkpoint_tables.prepare(database)
        async with await database.connect(statement_timeout="0") as connection:
            await connection.execute(_PROSE)
            await connection.execute(_FILL, {"count": count})
            await connection.execute("VACUUM (ANALYZE)")
    try:
        figures = await _through_the_api(stack, empty, full)
        figures += await _in_the_store(stack)
        return [*figures, *await _while_pruned(stack)]
    finally:
        for schema in SCHEMAS:
            await stack.execute(f"DROP SCHEMA {schema} CASCADE")


# -- the same work in both ---------------------------------------------------------------------------------------------


async def _through_the_api(stack: Stack, *databases: Database) -> list[Figure]:
    body = load.request("burst", "1" * 950)
    paths = [(port, await _some_runs(database)) for port, database in zip(PORTS, databases, strict=True)]
    quiet = {"OUTLAST_RETENTION_DAYS": "0"}
    async with (
        stack.api(PORTS[0], OUTLAST_SCHEMA=SCHEMAS[0], **quiet),
        stack.api(PORTS[1], OUTLAST_SCHEMA=SCHEMAS[1], **quiet),
    ):
        await in_own_process(load.post_by_turns, PORTS, "/responses", body, CLIENTS, 1, SECONDS)
        posted = await in_own_process(load.post_by_turns, PORTS, "/responses", body, CLIENTS, ROUNDS, SECONDS)
        polled = await in_own_process(load.get_by_turns, paths, CLIENTS, ROUNDS, SECONDS)
    return [*_compared("submit", posted), *_compared("poll", polled)]


async def _some_runs(database: Database) -> list[str]:
    """Paths of finished runs from all over the table."""
    async with await database.connect() as connection:
        cursor = await connection.execute(
            "SELECT id FROM runs WHERE finished_at IS NOT NULL ORDER BY md5(id::text) LIMIT %s", (POLLED,)
        )
        return [f"/responses/resp_{row[0].hex}" for row in await cursor.fetchall()]


async def _in_the_store(stack: Stack) -> list[Figure]:
    settings = load_settings(database_url=stack.postgres.url, retention_days=0)
    databases = [Database(fixed(stack.postgres.url), schema=schema, application="bench") for schema in SCHEMAS]
    connections = [await database.connect(**PINNED_PLAN) for database in databases]
    sweeps = [Sweep(database, settings, _Silent(), Rest(settings, _Silent())) for database in databases]
    try:
        figures = _compared("claim of 1", await _by_turns([lambda c=c: _claim(c, 1) for c in connections]))
        figures += _compared("claim of 16", await _by_turns([lambda c=c: _claim(c, 16) for c in connections]))
        return figures + _compared("sweep", await _by_turns([sweep.look for sweep in sweeps]))
    finally:
        for thing in (*connections, *sweeps):
            await thing.close()


class _Silent(Doorbell):
    """A doorbell that nobody hears."""

    def __init__(self) -> None:
        pass

    hearing = False  # so that nobody rests

    def ring_if_silent(self, queue: str) -> None:
        pass

    def awake(self) -> None:
        pass


async def _claim(connection: Connection, limit: int) -> None:
    async with connection.transaction(force_rollback=True):
        await claims.claim(connection, queues=["default"], limit=limit, owner="bench", lease_seconds=60)


async def _by_turns(works: Sequence[Callable[[], Awaitable[object]]]) -> list[list[list[float]]]:
    """How long each took: for each the rounds, of ten times each."""
    times: list[list[list[float]]] = [[] for _ in works]
    for number in range(REPEATS):
        for place in (0, 1) if number % 2 else (1, 0):
            began = time.monotonic()
            await works[place]()
            if number % 10 == 0:
                times[place].append([])
            times[place][-1].append(time.monotonic() - began)
    return times


def _compared(what: str, times: list[list[list[float]]]) -> list[Figure]:
    """The medians of all, and the median of the rounds' ratios."""
    empty, full = times
    ratio = median(median(b) / median(a) for a, b in zip(empty, full, strict=True))
    plain = [1000 * median(time for round_ in rounds for time in round_) for rounds in times]
    return [
        Figure(f"{what}, empty p50", plain[0], "ms"),
        Figure(f"{what}, {FINISHED:,} finished runs p50", plain[1], "ms"),
        Figure(f"{what}, full to empty", ratio, "x", at_most=LIMIT),
    ]


# -- removing half -----------------------------------------------------------------------------------------------------


async def _while_pruned(stack: Stack) -> list[Figure]:
    body = load.request("burst", "1" * 950)
    prune = (sys.executable, "-m", "outlast.infra.cli", "prune", "--yes", "--older-than", "15d")

    async def paced() -> list[float]:
        return await in_own_process(load.post_at_pace, PORTS[1], "/responses", body, PER_SECOND, CALM_SECONDS)

    async with stack.api(PORTS[1], OUTLAST_SCHEMA=SCHEMAS[1], OUTLAST_RETENTION_DAYS="0"):
        calm = await paced()
        posting = asyncio.create_task(paced())
        began = time.monotonic()
        async with stack.process(*prune, env={"OUTLAST_SCHEMA": SCHEMAS[1]}) as process:
            if await process.wait() != 0:
                raise RuntimeError("the pruning failed")
            took = time.monotonic() - began
        pruned = await posting
        calm += await paced()
    figures = [*percentiles("submit at 500 a minute", calm), *percentiles("the same while half is pruned", pruned)]
    return [
        *figures,
        Figure("p99, while pruned to not", figures[3].value / figures[1].value, "x", at_most=2),
        Figure("runs pruned", FINISHED / 2 / took, "/s"),
    ]
