"""Evidence made by hand: a run of the chain that was taken over in its second step, as it should be."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

from tests.chaos import scenario
from tests.chaos.checker import Evidence, Stored
from tests.chaos.clients import Connection, Watched
from tests.chaos.ledger import BEGIN, END, KEPT, SAY, Entry

TOKEN = "c1.1"
RUN = "resp_1"
FIRST, SECOND = scenario.CHAIN_STEPS[:2]
BEGAN = datetime(2026, 1, 1, tzinfo=UTC)
PIDS = {1: 100, 2: 200}


class Log:
    """Events in the making."""

    def __init__(self) -> None:
        self.events: list[dict[str, Any]] = []
        self.items: list[dict[str, Any]] = []
        self.marker: dict[str, Any] | None = None

    def add(self, kind: str, **fields: Any) -> None:
        if self.marker:
            fields["outlast"], self.marker = self.marker, None
        self.events.append({"type": f"response.{kind}", "sequence_number": len(self.events), **fields})

    def open(self) -> None:
        item = {"id": f"msg_{len(self.items)}", "type": "message", "status": "in_progress", "content": []}
        self.add("output_item.added", output_index=len(self.items), item=dict(item))
        self.items.append(item | {"content": [{"type": "output_text", "text": ""}]})

    def say(self, text: str) -> None:
        item = self.items[-1]
        item["content"][0]["text"] += text
        self.add("output_text.delta", output_index=len(self.items) - 1, item_id=item["id"], delta=text)

    def close(self, status: str = "completed") -> None:
        self.items[-1]["status"] = status
        item = json.loads(json.dumps(self.items[-1]))
        self.add("output_item.done", output_index=len(self.items) - 1, item=item)


class Sample:
    """The evidence, and its parts for a test to spoil."""

    def __init__(self) -> None:
        self.log = Log()
        self.entries: list[Entry] = []
        for kind in ("created", "queued", "in_progress"):
            self.log.add(kind)
        self._step(FIRST, attempt=1)
        self._note(BEGIN, 1, SECOND)
        self.log.open()
        self._say(scenario.words(1, TOKEN, SECOND)[:2], 1, SECOND)
        self.log.marker = {"attempt": 2, "superseded": [self.log.items[-1]["id"]]}
        self.log.close("incomplete")
        for step in scenario.CHAIN_STEPS[1:]:
            self._step(step, attempt=2)
        self.response = {
            "id": RUN,
            "status": "completed",
            "output": [i for n, i in enumerate(self.log.items) if n != 1],
        }
        self.log.add("completed", response=self.response)
        self.state = scenario.state(scenario.CHAIN, [TOKEN])

    def _step(self, step: str, attempt: int) -> None:
        self._note(BEGIN, attempt, step)
        self.log.open()
        self._say(scenario.words(attempt, TOKEN, step), attempt, step)
        self.log.close()
        self._note(END, attempt, step)
        self._note(KEPT, attempt, step)

    def _say(self, words: list[str], attempt: int, step: str) -> None:
        for number, word in enumerate(words):
            self._note(SAY, attempt, step, word)
            self.log.say(f" {word}" if number else word)

    def _note(self, kind: str, attempt: int, step: str, detail: str = "") -> None:
        at, task = float(len(self.entries)), f"task of {step}"
        if kind == KEPT:
            self.entries.append(Entry(at, PIDS[attempt], kind, task=task))
        else:
            self.entries.append(Entry(at, PIDS[attempt], kind, TOKEN, attempt, step, task, detail))

    @property
    def lines(self) -> list[str]:
        return [json.dumps(event) for event in self.log.events]

    def stored(self) -> Stored:
        """In two rows, as compaction leaves a log."""
        lines = self.lines
        return Stored(
            id=RUN,
            token=TOKEN,
            agent=scenario.CHAIN,
            thread="t1",
            status="completed",
            attempt=2,
            started_at=BEGAN,
            finished_at=BEGAN + timedelta(seconds=20),
            response=self.response,
            last_seq=len(lines) - 1,
            closed=True,
            rows=[(0, 4, "\n".join(lines[:5])), (5, len(lines) - 1, "\n".join(lines[5:]))],
        )

    def watched(self) -> Watched:
        """A client that hung up once."""
        frames = [(number, line.encode()) for number, line in enumerate(self.lines)]
        connections = [Connection(-1, frames[:7]), Connection(6, frames[7:], done=True)]
        return Watched(TOKEN, scenario.CHAIN, "stream", None, RUN, connections)

    def evidence(self) -> Evidence:
        return Evidence({TOKEN: self.stored()}, 0, {"t1": self.state}, [self.watched()], self.entries)
