"""Items of outputs, read for a request that names or repeats them."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from uuid import UUID

from outlast.shared.connections import Connection
from outlast.shared.domain.runs import RunStatus


@dataclass(frozen=True, slots=True)
class Answer:
    """A run's final response as JSON text: None while the run goes on, or when all of them were too much to read."""

    run_id: UUID
    status: RunStatus
    response: str | None


async def answers(connection: Connection, principal: str, run_ids: Collection[UUID], *, max_bytes: int) -> list[Answer]:
    """The answers of those of these runs that are the principal's; without them when they are larger together."""
    cursor = await connection.execute(
        """SELECT id, status, CASE WHEN sum(octet_length(response)) OVER () <= %s THEN response END
           FROM runs WHERE id = ANY(%b::uuid[]) AND principal = %s""",
        (max_bytes, list(run_ids), principal),
        prepare=True,
    )
    return [Answer(row[0], RunStatus(row[1]), row[2]) for row in await cursor.fetchall()]


async def item_events(connection: Connection, run_ids: Collection[UUID]) -> list[str]:
    """Those events of these runs, as lines of JSON in order, that add, finish or supersede items."""
    cursor = await connection.execute(
        """SELECT line FROM run_events e
           CROSS JOIN LATERAL string_to_table(e.data, E'\\n') WITH ORDINALITY AS l(line, place)
           WHERE e.run_id = ANY(%b::uuid[])
             AND (line LIKE '{"type":"response.output\\_item.%%' OR line LIKE '%%"outlast":{%%')
           ORDER BY e.run_id, e.last_seq, place""",
        (list(run_ids),),
        prepare=True,
    )
    return [row[0] for row in await cursor.fetchall()]
