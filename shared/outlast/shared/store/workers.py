"""The workers that are alive, as they report themselves. It is there to be looked at; nothing depends on it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from outlast.shared.connections import Connection
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


async def report(connection: Connection, worker: Report) -> None:
    await connection.execute(
        """INSERT INTO workers (owner, host, pid, version, queues, children, slots, running, draining, counters)
           VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s)
           ON CONFLICT (owner) DO UPDATE SET seen_at = now(), children = EXCLUDED.children, slots = EXCLUDED.slots,
               running = EXCLUDED.running, draining = EXCLUDED.draining, counters = EXCLUDED.counters""",
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
        ),
        prepare=True,
    )


async def forget(connection: Connection, owner: str) -> None:
    """A worker that ends by itself takes its row along."""
    await connection.execute("DELETE FROM workers WHERE owner = %s", (owner,))


async def forget_silent(connection: Connection) -> None:
    await connection.execute("DELETE FROM workers WHERE seen_at < now() - make_interval(secs => %s)", (KEPT_SECONDS,))
