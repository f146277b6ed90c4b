"""What is left behind, read with plain SQL and with LangGraph's own saver: nothing of the product looks at it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import psycopg
from langgraph.checkpoint.postgres import PostgresSaver
from psycopg.rows import dict_row

from tests.chaos import scenario
from tests.chaos.clients import Watched
from tests.chaos.ledger import Entry


@dataclass(slots=True)
class Stored:
    """A run as the tables have it."""

    id: str
    token: str
    agent: str
    thread: str
    """The id of its thread."""
    status: str
    attempt: int
    started_at: datetime | None
    finished_at: datetime | None
    response: dict[str, Any] | None
    last_seq: int
    closed: bool
    last_cause: str | None = None
    rows: list[tuple[int, int, str]] = field(default_factory=list[tuple[int, int, str]])
    """Of its log: first and last number, and the events as lines."""

    @property
    def lines(self) -> list[str]:
        return [line for _, _, data in self.rows for line in data.split("\n")]


@dataclass(slots=True)
class Evidence:
    """All that is judged."""

    runs: dict[str, Stored] = field(default_factory=dict[str, Stored])
    """By token."""
    leases: int = 0
    """Rows of leases that are left."""
    states: dict[str, list[str]] = field(default_factory=dict[str, list[str]])
    """By thread: the messages of its latest checkpoint."""
    watched: Sequence[Watched] = ()
    ledger: Sequence[Entry] = ()


_RUNS = """
SELECT r.id, r.request, r.agent, r.thread_id, r.status, r.attempt, r.started_at, r.finished_at, r.response,
       h.last_seq, h.closed, r.last_cause
FROM outlast.runs r JOIN outlast.run_heads h ON h.run_id = r.id ORDER BY r.started_at NULLS LAST, r.id
"""


def gather(url: str, watched: Sequence[Watched], ledger: Sequence[Entry]) -> Evidence:
    evidence = Evidence(watched=watched, ledger=ledger)
    with psycopg.Connection[dict[str, Any]].connect(
        url, options="-csearch_path=outlast", autocommit=True, row_factory=dict_row
    ) as connection:
        by_id: dict[Any, Stored] = {}
        for row in connection.execute(_RUNS):
            by_id[row["id"]] = found = _stored(row)
            evidence.runs[found.token] = found
        for row in connection.execute("SELECT run_id, first_seq, last_seq, data FROM run_events ORDER BY 1, 3"):
            by_id[row["run_id"]].rows.append((row["first_seq"], row["last_seq"], row["data"]))
        [leases] = connection.execute("SELECT count(*) FROM run_leases")
        evidence.leases = leases["count"]
        saver = PostgresSaver(connection)  # type: ignore[arg-type]
        for thread in {run.thread for run in evidence.runs.values() if run.agent in scenario.GRAPHS}:
            evidence.states[thread] = _state(saver, thread)
    return evidence


def _stored(row: dict[str, Any]) -> Stored:
    return Stored(
        id=f"resp_{row['id'].hex}",
        token=json.loads(row["request"])["input"],
        agent=row["agent"],
        thread=str(row["thread_id"]),
        status=row["status"],
        attempt=row["attempt"],
        started_at=row["started_at"],
        finished_at=row["finished_at"],
        response=json.loads(row["response"]) if row["response"] else None,
        last_seq=row["last_seq"],
        closed=row["closed"],
        last_cause=row["last_cause"],
    )


def _state(saver: PostgresSaver, thread: str) -> list[str]:
    found = saver.get_tuple({"configurable": {"thread_id": thread, "checkpoint_ns": ""}})
    return [message.text for message in found.checkpoint["channel_values"].get("messages", ())] if found else []
