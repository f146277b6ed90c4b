"""Runs of random programs that lose their worker again and again, and what their streams must come to.

An attempt drives `Output` as an adapter does. A kill leaves any prefix of its events, cut within an item's own or
not, and any checkpoint that the prefix allows: every event of what it holds as finished is in the prefix.

The answer must then be that of a run which nothing interrupted and in which the surviving steps spoke as they did:

* What survives comes first, in the order in which it was begun; what is said again comes after it, in the new order.
* A tool call that was still open belongs to the step that answers it: it is said again with its answer. One that
  nobody answers is no part of the comparison: it is kept, incomplete, unless a worker was lost while it was open.
* Calls for the client come last, in the order in which they were made.
* ``custom_outputs`` are those of the surviving steps, none missing. ``usage`` is what all attempts have spent, but for
  what was reported after the last stored event that can tell of it, or the last end of a step.
"""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from typing import Any

from outlast.agent import Approval, ClientCall, Close, Reasoning, State, Text, ToolCall, ToolResult, Usage
from outlast.api.submissions import first_events
from outlast.shared.domain.events import TERMINAL_TYPES, Event
from outlast.shared.domain.ids import item_id
from outlast.shared.domain.runs import ToolItems
from outlast.shared.output import Output
from outlast.shared.output.replay import Kept, replay
from outlast.shared.wire import event_from, event_line, to_json
from outlast.worker.agents.langgraph.survival import Reached, surviving
from tests.support.programs import (
    Action,
    Durable,
    Finished,
    Moment,
    Said,
    Writer,
    checkpoints,
    moments,
    without_lost_graphs,
)  # fmt: skip
from tests.support.runs import a_submission
from tests.support.streams import a_run

MAX_TAKEOVERS = 5


@dataclass
class Speaker:
    """Does to an output what an adapter would do for this attempt."""

    output: Output
    attempt: int
    callers: dict[str, int]
    """By call: the attempt whose model made it, which gave it its id."""

    def act(self, said: Said) -> list[Event]:
        output, path = self.output, said.path
        match said.action:
            case ("retract", name):
                return output.withdraw(f"{name}@{self.attempt}")
            case ("answer", name):
                call_id = f"{name}@{self.callers[name]}"
                again = [] if output.is_open(call_id) else output.emit(ToolCall("t", {"n": name}, call_id), path)
                return again + output.emit(ToolResult(call_id, f"{name} answered in {self.attempt}"), path)
            case _:
                return output.emit(self._emission(said.action), path)

    def _emission(self, action: Action) -> object:
        number = self.attempt
        match action:
            case ("text" | "think" as kind, key, *piece):
                make = Text if kind == "text" else Reasoning
                return make(f"{(piece or ['half'])[0]}@{number}", f"{key}@{number}" if key else None)
            case ("close", key):
                return Close(f"{key}@{number}")
            case ("call" | "lost call", name):
                self.callers[name] = number
                return ToolCall("t", {"n": name}, f"{name}@{number}")
            case ("usage", name):
                return Usage(len(name), number, 1)
            case ("state", name):
                return State({f"k{len(name) % 3}": f"{name}@{number}", "same": [1]})
            case ("ask", name):
                return ClientCall("ask", {"n": name}, f"{name}@{number}")
            case (_, name):
                return Approval("do", {"n": name}, f"mcpr_{name}@{number}")


@dataclass
class Life:
    """What one attempt did before it ended, and what of that is in the log."""

    attempt: int
    said: list[Said]
    told: list[bool]
    """Whether something that is stored tells of it, if it is usage."""
    again: set[str]
    """The places that it spoke from, or would have: what earlier ones said there is superseded."""


# -- a whole run -------------------------------------------------------------------------------------------------------


@dataclass
class Story:
    lines: list[str]
    response: dict[str, Any]
    expected: dict[str, Any]
    spent: Usage
    never_answered: set[str]
    """Calls of tools, by their arguments."""


class Telling:
    def __init__(self, seed: int) -> None:
        self._rng = random.Random(seed)
        self._writer = Writer(self._rng)
        self._program = self._writer.graph()
        self._submission = a_submission(tool_items=self._rng.choice(list(ToolItems)))
        self._run = a_run(self._submission)
        self._lines = first_events(self._submission).data.split("\n")
        self._stored: Durable = {}
        self._durable: Durable = {}
        """What of the stored checkpoints the next attempt will find."""
        self._lives: list[Life] = []
        self._callers: dict[str, int] = {}
        self._kept = Kept(0, {}, {})

    async def story(self) -> Story:
        takeovers = self._rng.randint(0, MAX_TAKEOVERS)
        for number in range(1, takeovers + 1):
            await self._killed(number)
        end = self._rng.choice(("complete", "complete", "complete", "fail", "cancel", "never started"))
        response = await self._last(takeovers + 1, end)
        expected = self._uninterrupted(end) if end != "never started" else response  # all that was said stays
        never_answered = {"{}", *(to_json({"n": name}) for name in self._writer.never_answered)}
        return Story(self._lines, response, expected, self._spent(), never_answered)

    async def _killed(self, number: int) -> None:
        """An attempt of which a prefix of its events is stored, and a checkpoint."""
        output, events = await self._begin(number)
        plan = list(moments(self._program, self._durable, self._rng))
        speaker = Speaker(output, number, self._callers)
        keeps: list[tuple[int, int, Kept]] = []
        begins: list[int] = []
        for moment in plan:
            begins.append(len(events))
            if isinstance(moment, Said):
                events += speaker.act(moment)
            elif isinstance(moment, Finished) and (untold := output.untold()):
                keeps.append((len(begins), len(events), Kept(0, {}, untold)))
        ends = [*begins[1:], len(events)]
        if self._rng.random() < 0.3:
            events += output.settle("completed")
        cut = self._rng.choice((len(events), self._rng.randint(0, len(events)), self._rng.randint(0, len(events))))
        self._store(number, events[:cut])
        past = sum(end <= cut for end in ends)
        kept = 0
        for place, stored, what in keeps:
            if stored <= cut:
                kept, self._kept = place, what
        told = [place < kept or _tells(events[begin:cut]) for place, begin in enumerate(begins)]
        self._live(number, plan, past, told)
        self._stored = checkpoints(self._durable, plan[:past], self._rng)
        self._durable = without_lost_graphs(self._stored, self._program)

    async def _last(self, number: int, end: str) -> dict[str, Any]:
        output, events = await self._begin(number, started=end != "never started")
        plan = list(moments(self._program, self._durable, self._rng)) if end != "never started" else []
        length = len(plan) if end == "complete" else self._rng.randint(0, len(plan))
        speaker = Speaker(output, number, self._callers)
        for moment in plan[:length]:
            events += speaker.act(moment) if isinstance(moment, Said) else []
        last, response = ended(output, end)
        self._store(number, [*events, *last])
        self._live(number, plan, length, [True] * length)
        return response

    async def _begin(self, number: int, *, started: bool = True) -> tuple[Output, list[Event]]:
        past = replay(map(event_from, self._lines), self._kept)
        run = replace(self._run, attempt=number, last_seq=len(self._lines) - 1)
        output = Output(run, partial(item_id, run.run_id), lambda: 0.0, past)

        async def look(namespace: str) -> Reached | None:
            return self._stored.get(namespace)

        return output, output.begin(await surviving(past.said, look) if started else None)

    def _store(self, number: int, events: Sequence[Event]) -> None:
        marked = [event.fields["outlast"]["attempt"] for event in events[:1] if "outlast" in event.fields]
        assert marked == ([number] if number > 1 and events else [])
        self._lines += [event_line(event) for event in events]

    def _live(self, number: int, plan: Sequence[Moment], past: int, told: Sequence[bool]) -> None:
        """``past`` of these moments are stored as a whole."""
        said = [(moment, known) for moment, known in zip(plan[:past], told, strict=False) if isinstance(moment, Said)]
        again = {_place(moment) for moment in plan if isinstance(moment, Said)}
        self._lives.append(Life(number, [moment for moment, _ in said], [known for _, known in said], again))

    # -- what it must come to ------------------------------------------------------------------------------------------

    def _uninterrupted(self, end: str) -> dict[str, Any]:
        """The response of a run whose one attempt says what survives of these."""
        output = Output(self._run, partial(item_id, self._run.run_id), lambda: 0.0)
        output.begin()
        callers: dict[str, int] = {}
        for life in self._lives:
            speaker = Speaker(output, life.attempt, callers)
            lost = {place for later in self._lives if later.attempt > life.attempt for place in later.again}
            kept = [said for said in life.said if _place(said) not in lost]
            answered = {said.action[1] for said in kept if said.action[0] == "answer"}
            for said in kept:
                kind, name = said.action[:2]
                if kind == "call" and life is not self._lives[-1] and name not in answered:
                    callers[name] = life.attempt
                    output.emit(ToolCall("t", {}, f"unanswered {name}"), said.path)  # it ended what was being said
                else:
                    speaker.act(said)
        return ended(output, end)[1]

    def _spent(self) -> Usage:
        """By all attempts, as far as it was stored."""
        spent = [
            Usage(len(said.action[1]), life.attempt, 1)
            for life in self._lives
            for said, told in zip(life.said, life.told, strict=True)
            if told and said.action[0] == "usage"
        ]
        return Usage(sum(u.input_tokens for u in spent), sum(u.output_tokens for u in spent), len(spent))


def ended(output: Output, end: str) -> tuple[list[Event], dict[str, Any]]:
    """As an attempt ends."""
    settled = output.settle("completed" if end == "complete" else "incomplete")
    match end:
        case "complete":
            last, response = output.complete(datetime.fromtimestamp(0, UTC))
        case "fail":
            last, response = output.fail("agent_error", "It went wrong.")
        case _:
            last, response = output.cancel()
    return [*settled, *last], response


def _tells(events: Sequence[Event]) -> bool:
    return any(not event.type.endswith(".delta") and event.type not in TERMINAL_TYPES for event in events)


def _place(said: Said) -> str:
    return json.dumps(said.path)


def tell(seed: int) -> Story:
    """The run of this seed."""
    return asyncio.run(Telling(seed).story())


def anonymous(response: Mapping[str, Any], never_answered: Collection[str] = ()) -> dict[str, Any]:
    """The answer without what is new in each attempt, and without calls that nobody answers."""
    calls: dict[str, int] = {}
    answered = [i for i in response["output"] if i["type"] != "mcp_call" or i["arguments"] not in never_answered]
    status = {} if response["status"] == "completed" else {"status": None}  # what an end cuts may be open or not
    output = [{**item, "id": None, **status} for item in answered]
    for item in output:
        if "call_id" in item:
            item["call_id"] = calls.setdefault(item["call_id"], len(calls))
    told = ("status", "custom_outputs", "error", "incomplete_details")
    return {"output": output, **{key: response[key] for key in told}}
