"""Plan settings of one transaction, for statements on connections that other statements share."""

from __future__ import annotations

from typing import LiteralString

from outlast.shared.connections import PINNED_PLAN, Connection

# Without enable_bitmapscan = off the count of a queue of 100,000 reads all of it. With enable_sort = off the cancel of
# a thread's other runs does (0.5 s), so that stays as it is.
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
