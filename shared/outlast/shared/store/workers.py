"""The workers that are alive, as they report themselves, and what is asked of them. No run depends on it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from outlast.shared.connections import Connection
from outlast.shared.domain.measures import Samples
from outlast.shared.domain.runs import AgentKind
from outlast.shared.wire import to_json

KEPT_SECONDS = 60.0  # a worker that has been silent for so long is not shown any more


@dataclass(frozen=True, slots=True)
class Report:
    """What a worker says of itself once a beat."""

    owner: str
    host: str
    pid: int
    version: str
    queues: Sequence[str]
    children: int
    slots: int
    running: int
    draining: bool
    counters: Mapping[str, int]
    """Totals since it started."""
    resting_seconds: float | None = None
    """So long it will say nothing, unless there is work."""
    samples: Samples = field(default_factory=Samples)
    """The same of what it measured."""
    agents: Mapping[str, AgentKind] = field(default_factory=dict[str, AgentKind])
    """What its children have loaded."""


async def report(connection: Connection, worker: Report) -> bool:
    """Returns whether somebody wants this worker drained."""
    cursor = await connection.execute(
        """INSERT INTO workers (owner, host, pid, version, queues, children, slots, running, draining, counters,
                                samples, agents, resting_until)
           VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s::jsonb, now() + make_interval(secs => %s))
           ON CONFLICT (owner) DO UPDATE SET seen_at = now(), children = EXCLUDED.children, slots = EXCLUDED.slots,
               running = EXCLUDED.running, draining = EXCLUDED.draining, counters = EXCLUDED.counters,
               samples = EXCLUDED.samples, agents = EXCLUDED.agents, resting_until = EXCLUDED.resting_until
           RETURNING drain_requested_at IS NOT NULL""",
        (
            worker.owner,
            worker.host,
            worker.pid,
            worker.version,
            list(worker.queues),
            worker.children,
            worker.slots,
            worker.running,
            worker.draining,
            to_json(worker.counters),
            to_json(worker.samples),
            to_json(worker.agents),
            worker.resting_seconds,
        ),
        prepare=True,
    )
    row = await cursor.fetchone()
    return bool(row and row[0])


async def kind_of(connection: Connection, agent: str) -> AgentKind | None:
    """What an agent is, by the worker that said so last; None while no worker has."""
    cursor = await connection.execute(
        "SELECT agents ->> %(agent)s FROM workers WHERE agents ? %(agent)s ORDER BY seen_at DESC LIMIT 1",
        {"agent": agent},
    )
    row = await cursor.fetchone()
    return AgentKind(row[0]) if row else None


async def request_drain(connection: Connection, names: Sequence[str] | None) -> list[str]:
    """Have workers end as by SIGTERM, each with its next beat: those with these names, or all (None).

    A name is an owner or ``host:pid``. Returns the owners; asked again they are the same.
    """
    cursor = await connection.execute(
        """UPDATE workers SET drain_requested_at = coalesce(drain_requested_at, now()) WHERE owner = ANY(ARRAY(
               SELECT owner FROM workers
               WHERE %(names)s::text[] IS NULL OR owner = ANY(%(names)s) OR host || ':' || pid = ANY(%(names)s)
               ORDER BY owner FOR NO KEY UPDATE))
           RETURNING owner""",
        {"names": None if names is None else list(names)},
    )
    return sorted(row[0] for row in await cursor.fetchall())


async def forget(connection: Connection, owner: str) -> None:
    """A worker that ends by itself takes its row along."""
    await connection.execute("DELETE FROM workers WHERE owner = %s", (owner,))


async def forget_silent(connection: Connection) -> None:
    await connection.execute(
        "DELETE FROM workers WHERE coalesce(resting_until, seen_at) < now() - make_interval(secs => %s)",
        (KEPT_SECONDS,),
    )
