"""Taking a run's checkpoints back to the last one that holds everything."""

from __future__ import annotations

from outlast.shared.connections import Connection
from outlast.shared.domain.runs import Lease


async def rewind(connection: Connection, lease: Lease, *, thread_id: str, not_stored: str) -> int:
    """Remove what this run has written after its last whole checkpoint, in each graph. Returns how many it were.

    A checkpoint is not whole when a value that this run made is not in it: LangGraph's tables have ``not_stored`` as
    that value's type then. When the outer graph goes back, so do the graphs within it: their steps are taken again.
    """
    cursor = await connection.execute(
        """
        WITH fenced AS MATERIALIZED (SELECT fence(%(run)s, %(attempt)s)),
        made AS MATERIALIZED (
          SELECT c.checkpoint_ns, c.checkpoint_id, NOT EXISTS (
            SELECT FROM jsonb_each_text(c.checkpoint -> 'channel_versions') AS v
            JOIN checkpoint_blobs AS b ON b.thread_id = c.thread_id AND b.checkpoint_ns = c.checkpoint_ns
                                      AND b.channel = v.key AND b.version = v.value AND b.type = %(not_stored)s
          ) AS whole
          FROM checkpoints AS c, fenced
          WHERE c.thread_id = %(thread)s AND c.metadata ->> 'outlast_run_id' = %(run)s::text
            AND EXISTS (SELECT FROM checkpoint_blobs WHERE thread_id = %(thread)s AND type = %(not_stored)s)
        ),
        kept AS (
          SELECT checkpoint_ns, coalesce(max(checkpoint_id) FILTER (WHERE whole), '') AS latest
          FROM made GROUP BY checkpoint_ns
        ),
        outer_cut AS (
          SELECT kept.latest FROM kept
          WHERE checkpoint_ns = ''
            AND EXISTS (SELECT FROM made WHERE made.checkpoint_ns = '' AND made.checkpoint_id > kept.latest)
        ),
        gone AS (
          SELECT made.checkpoint_ns, made.checkpoint_id FROM made JOIN kept USING (checkpoint_ns)
          WHERE made.checkpoint_id > kept.latest OR made.checkpoint_id > (SELECT latest FROM outer_cut)
        ),
        writes AS (
          DELETE FROM checkpoint_writes AS w USING gone
          WHERE w.thread_id = %(thread)s AND w.checkpoint_ns = gone.checkpoint_ns
            AND w.checkpoint_id = gone.checkpoint_id
        )
        DELETE FROM checkpoints AS c USING gone
        WHERE c.thread_id = %(thread)s AND c.checkpoint_ns = gone.checkpoint_ns
          AND c.checkpoint_id = gone.checkpoint_id
        """,
        {
            "run": lease.run_id,
            "attempt": lease.attempt,
            "thread": thread_id,
            "not_stored": not_stored,
        },
    )
    return cursor.rowcount
