"""Plan settings of one transaction, for statements on connections that other statements share."""

from __future__ import annotations

from typing import LiteralString

from outlast.shared.connections import PINNED_PLAN, Connection

# Without enable_sort: the cancel of a thread's other runs, which may not sort, read all of a queue of 100,000 (0.5 s).
BY_INDEX: LiteralString = """
SELECT set_config('enable_seqscan', 'off', true), set_config('enable_bitmapscan', 'off', true),
       set_config('jit', 'off', true)
"""


async def pin(connection: Connection, **settings: str) -> None:
    """Give the transaction that is open PINNED_PLAN and these settings, until it ends."""
    values = {**PINNED_PLAN, **settings}
    await connection.execute(
        "SELECT set_config(name, value, true) FROM unnest(%s::text[], %s::text[]) AS s(name, value)",
        (list(values), list(values.values())),
    )
