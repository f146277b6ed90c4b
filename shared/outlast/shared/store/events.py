"""The event log: fenced append, reads after a cursor, compaction."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

from outlast.shared.connections import Connection
from outlast.shared.domain.events import Chunk
from outlast.shared.notifications import notify, payloads

PAGE_BYTES = 256 * 1024
PAGE_CHUNKS = 200
COMPACT_BYTES = 8 * 1024  # 20 to 50 token deltas: enough to compress well, little to skip for a late cursor


@dataclass(frozen=True, slots=True)
class Append:
    """The next events of one run, as its attempt numbered them."""

    run_id: UUID
    attempt: int
    chunk: Chunk


# Number, fence and insert for all runs of a worker at once. A head moves only if this attempt owns the run, the numbers
# follow the last ones and the log is open; a run missing from the answer was rejected. Heads are locked in the order in
# which they are given, each found by its key: no plan, however old its statistics, can read all heads instead.
_APPEND = """
WITH b AS MATERIALIZED (
    SELECT * FROM unnest(%b::uuid[], %b::int[], %b::int[], %b::int[], %b::text[])
    AS b(run_id, attempt, first_seq, last_seq, data)),
l AS MATERIALIZED (
    SELECT b.* FROM b CROSS JOIN LATERAL (
        SELECT FROM run_heads h WHERE h.run_id = b.run_id AND h.attempt = b.attempt FOR NO KEY UPDATE) h),
u AS (
    UPDATE run_heads h SET last_seq = l.last_seq FROM l
    WHERE h.run_id = ANY(ARRAY(SELECT run_id FROM l)) AND h.run_id = l.run_id
      AND h.attempt = l.attempt AND h.last_seq = l.first_seq - 1 AND NOT h.closed
    RETURNING h.run_id, l.first_seq, h.last_seq, l.data),
i AS (INSERT INTO run_events (run_id, first_seq, last_seq, data) SELECT run_id, first_seq, last_seq, data FROM u)
SELECT array_agg(run_id) FROM u
"""


async def append(connection: Connection, schema: str, batch: Sequence[Append]) -> set[UUID]:
    """Append to many runs in one transaction and hint at it in another, in one write. Returns the accepted runs.

    The parameters are binary arrays (``%b``): psycopg's text arrays cost more than Postgres does.
    """
    batch = sorted(batch, key=lambda a: a.run_id.bytes)  # ascending, as everybody locks
    values = (
        [a.run_id for a in batch],
        [a.attempt for a in batch],
        [a.chunk.first_seq for a in batch],
        [a.chunk.last_seq for a in batch],
        [a.chunk.data for a in batch],
    )
    async with connection.pipeline():
        # Not pipeline.sync(): it waits for the answer, and with more data than the socket takes it waits for ever.
        await connection.execute("BEGIN")
        cursor = await connection.execute(_APPEND, values, prepare=True)
        await connection.execute("COMMIT")
        await notify(connection, schema, payloads((a.run_id, a.chunk.last_seq) for a in batch))
    row = await cursor.fetchone()
    return set(row[0] or ()) if row else set()


async def applied(connection: Connection, batch: Sequence[Append]) -> set[UUID]:
    """The runs whose events are in the log: of a batch that was rejected, but sent before with an unknown outcome."""
    cursor = await connection.execute(
        """SELECT h.run_id FROM run_heads h
           JOIN unnest(%b::uuid[], %b::int[], %b::int[]) AS b(run_id, attempt, last_seq)
           ON h.run_id = b.run_id AND h.attempt = b.attempt AND h.last_seq >= b.last_seq""",
        ([a.run_id for a in batch], [a.attempt for a in batch], [a.chunk.last_seq for a in batch]),
    )
    return {row[0] for row in await cursor.fetchall()}


# Pages are cut by size: no reader holds more than it can pass on. octet_length does not unpack what it measures.
_PAGE = """
SELECT run_id, first_seq, last_seq, data, extract(epoch FROM clock_timestamp() - created_at)::float8 FROM (
    SELECT c.*, sum(octet_length(data)) OVER (ORDER BY last_seq) - octet_length(data) AS before FROM (
        SELECT run_id, first_seq, last_seq, data, created_at FROM run_events e
        WHERE e.run_id = q.run_id AND e.last_seq >= q.sequence_number ORDER BY e.last_seq LIMIT %s) c) p
WHERE before < %s ORDER BY last_seq
"""
_READ = f"""
SELECT p.* FROM unnest(%b::uuid[], %b::int[]) AS q(run_id, sequence_number) CROSS JOIN LATERAL ({_PAGE}) p
"""


async def read_from(connection: Connection, cursors: Sequence[tuple[UUID, int]]) -> dict[UUID, list[Chunk]]:
    """For each run the chunks that hold this number and later ones, up to a page of them, in order."""
    values = ([c[0] for c in cursors], [c[1] for c in cursors], PAGE_CHUNKS, PAGE_BYTES)
    cursor = await connection.execute(_READ, values, prepare=True)
    pages: dict[UUID, list[Chunk]] = {}
    for run_id, *chunk in await cursor.fetchall():
        pages.setdefault(run_id, []).append(Chunk(*chunk))
    return pages


def may_be_cut(page: Sequence[Chunk]) -> bool:
    """Whether there may be more after this page. A character is at most four bytes."""
    return len(page) >= PAGE_CHUNKS or 4 * sum(len(chunk.data) for chunk in page) >= PAGE_BYTES


async def read_all(connection: Connection, run_id: UUID) -> list[str]:
    """Every event of a run, as lines of JSON."""
    cursor = await connection.execute(
        "SELECT data FROM run_events WHERE run_id = %s ORDER BY last_seq", (run_id,), prepare=True
    )
    return [line for (data,) in await cursor.fetchall() for line in data.split("\n")]


async def heads(connection: Connection, run_ids: Sequence[UUID]) -> dict[UUID, int]:
    """The last number of each run's log."""
    cursor = await connection.execute(
        "SELECT run_id, last_seq FROM run_heads WHERE run_id = ANY(%b::uuid[])",
        (list(run_ids),),
        prepare=True,
    )
    return dict(await cursor.fetchall())


async def compact(connection: Connection, run_id: UUID) -> int:
    """Join the rows of a closed log into fewer, larger ones; readers see the same events. Returns the rows left."""
    cursor = await connection.execute(
        """
        WITH h AS MATERIALIZED (SELECT run_id FROM run_heads WHERE run_id = %s AND closed FOR NO KEY UPDATE),
        old AS (DELETE FROM run_events WHERE run_id = (SELECT run_id FROM h)
                RETURNING run_id, first_seq, last_seq, created_at, data),
        sized AS (
            SELECT old.*, sum(octet_length(data)) OVER (ORDER BY last_seq) - octet_length(data) AS before FROM old)
        INSERT INTO run_events (run_id, first_seq, last_seq, created_at, data)
        SELECT run_id, min(first_seq), max(last_seq), min(created_at), string_agg(data, E'\n' ORDER BY last_seq)
        FROM sized GROUP BY run_id, before / %s
        """,
        (run_id, COMPACT_BYTES),
        prepare=True,
    )
    return cursor.rowcount
