"""What pruning would remove, found out with bounded effort."""

from __future__ import annotations

from dataclasses import dataclass
from typing import LiteralString

from outlast.shared.connections import Connection

from .pruning import EXPIRED, WANTED, Expiry, has_checkpoints, values_of

COUNTED_RUNS = 100_000
_SAMPLED_RUNS = 500


@dataclass(frozen=True, slots=True)
class Forecast:
    """Bytes are those of the stored form, which is compressed."""

    runs: int
    """At most `COUNTED_RUNS`: then there may be more."""
    event_bytes: int
    checkpoints: int
    sampled: bool
    """The last two were estimated from the runs that ended first."""


_EXPIRED: LiteralString = f"{EXPIRED} AND {WANTED}"
_COUNT: LiteralString = f"SELECT count(*) FROM (SELECT FROM runs r WHERE {_EXPIRED} LIMIT %(counted)s) counted"
_SAMPLE: LiteralString = f"""
sample AS MATERIALIZED (
    SELECT r.id, r.thread_id FROM runs r WHERE {_EXPIRED} ORDER BY r.finished_at, r.id LIMIT %(sampled)s)
"""
_SAMPLED_EVENTS: LiteralString = f"""
WITH {_SAMPLE}
SELECT (SELECT count(*) FROM sample), coalesce(sum(pg_column_size(e.data)), 0)::bigint
FROM sample JOIN run_events e ON e.run_id = sample.id
"""
# The checkpoints of the threads that lose all their runs; of a thread with more runs than are in the sample, a part.
_SAMPLED_CHECKPOINTS: LiteralString = f"""
WITH {_SAMPLE},
t AS (SELECT thread_id, count(*) AS sampled FROM sample GROUP BY thread_id)
SELECT coalesce(sum(c.saved * t.sampled / w.runs), 0)::bigint
FROM t
CROSS JOIN LATERAL (
    SELECT count(*) AS runs, count(*) FILTER (WHERE {_EXPIRED}) AS going FROM runs r WHERE r.thread_id = t.thread_id) w
CROSS JOIN LATERAL (SELECT count(*) AS saved FROM checkpoints WHERE thread_id = t.thread_id::text) c
WHERE w.runs = w.going
"""


async def forecast(connection: Connection, expiry: Expiry) -> Forecast:
    values = values_of(expiry) | {"counted": COUNTED_RUNS, "sampled": _SAMPLED_RUNS}
    row = await (await connection.execute(_COUNT, values)).fetchone()
    runs = row[0] if row else 0
    row = await (await connection.execute(_SAMPLED_EVENTS, values)).fetchone()
    sampled, event_bytes = row or (0, 0)
    checkpoints = 0
    if await has_checkpoints(connection):
        row = await (await connection.execute(_SAMPLED_CHECKPOINTS, values)).fetchone()
        checkpoints = row[0] if row else 0
    share = runs / sampled if sampled else 1.0
    return Forecast(runs, round(event_bytes * share), round(checkpoints * share), sampled < runs)
