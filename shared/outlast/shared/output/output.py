"""One run's output as one attempt makes it: emissions in, numbered events out, the final response at the end."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

from outlast.agent import (
    Annotation,
    Approval,
    ClientCall,
    Close,
    Reasoning,
    Refusal,
    State,
    Text,
    ToolCall,
    ToolResult,
    Usage,
)
from outlast.shared.domain.events import COMPLETED, FAILED, IN_PROGRESS, INCOMPLETE, TERMINAL_TYPES, Event
from outlast.shared.domain.responses import Outcome, error_object, response_object
from outlast.shared.domain.runs import Run, RunStatus, ToolItems
from outlast.shared.wire import clean

from . import emissions, items
from .asides import Asides
from .emissions import EmissionError
from .items import Closing, Item, Origin, Path, Step
from .replay import Past

NewId = Callable[[str, int], str]
"""Makes an id from its prefix and an output index; unique over all runs."""
Clock = Callable[[], float]
"""Seconds since 1970."""


class Output:
    """Every method returns the events to append, numbered on from those before.

    One message or reasoning item is open at a time, and one more for each key; server tool calls stay open until their
    results. Calls that the client must answer are held back to the end: what it has seen is then never taken back.
    """

    def __init__(self, run: Run, new_id: NewId, clock: Clock, past: Past | None = None) -> None:
        self._run = run
        self._make_id = new_id
        self._clock = clock
        self._past = past or Past()
        self._items = list(self._past.items)
        self._next_seq = run.last_seq + 1
        self._speaking: dict[str | None, Item] = {}
        self._calls: dict[str, Item | ToolCall] = {}
        self._asides = Asides(run.attempt, self._past.asides, self._past.asides_told)
        self._usage, self._told_usage = self._past.usage, self._past.usage_told
        self._ranks: dict[str, int] = {}
        self._marker: dict[str, Any] | None = None
        """The field that the first event of a later attempt carries."""
        if run.attempt > self._past.attempt:
            self._mark([])

    def begin(self, surviving: Collection[str] | None = ()) -> list[Event]:
        """Say that the run is in progress, once.

        On a later attempt close what is open, and supersede what earlier ones said but for what has these ids (of
        ``Past.said``). With None nothing is said again, since the agent is not started: all of it stays.
        """
        if self._run.attempt > 1 and surviving is not None:
            lost = [item for item in self._items if item.surviving and item.id not in surviving]
            self._mark(lost, self._asides.supersede(surviving))
        steps = self._close_open("incomplete" if surviving is None else "completed")
        if not self._past.in_progress_written:
            steps.append((IN_PROGRESS, {"response": response_object(self._run)}))
        return self._number(steps)

    def emit(self, emission: object, path: Path = ()) -> list[Event]:
        """``path`` is the step that says it. Raises EmissionError for what is not of the vocabulary or out of place."""
        return self._number(self._steps(emission, path))

    def withdraw(self, key: str) -> list[Event]:
        """Take back all that was said under this key, or by the tool call of this id: it is not part of the answer."""
        opened = (self._speaking.pop(key, None), self._calls.pop(key, None))
        lost = [item for item in self._items if item.surviving and item.origin.key == key]
        held = self._asides.withdraw(key)
        if lost or held:
            self._mark(lost, held)
        return self._number(s for item in opened if isinstance(item, Item) for s in items.close(item, "incomplete"))

    def arrange(self, keys: Sequence[str]) -> None:
        """Have the final output in the order of these keys. What has no such key stays behind what it followed."""
        self._ranks = {key: rank for rank, key in enumerate(keys)}

    def is_open(self, call_id: str) -> bool:
        """Whether this attempt has told of a tool call whose result is still to come."""
        return call_id in self._calls

    def is_held(self, call_id: str) -> bool:
        """Whether a call that the client must answer is held back under this id."""
        return any(emissions.held_id(held)[1] == call_id for held in self._asides.held)

    @property
    def surviving(self) -> list[Item]:
        """What is part of the answer, so far."""
        return items.arranged(self._items, self._ranks)

    @property
    def asking(self) -> Sequence[Path]:
        """The steps that have called what the client must answer."""
        return self._asides.asking

    def pause(self) -> list[Event]:
        """Complete the messages that are being written: what comes next begins new ones."""
        return self._number([step for key in list(self._speaking) for step in self._finish_saying(key)])

    def untold(self) -> dict[str, Any]:
        """What a later attempt must know and no event tells yet: the next one will. Until then, store it elsewhere."""
        return self._untold(self._asides.keep())

    def settle(self, status: Closing) -> list[Event]:
        """Close what is open, ahead of the end: a long text is then stored by itself, not in one piece with the end."""
        return self._number(self._close_open(status))

    def complete(self, now: datetime) -> tuple[list[Event], dict[str, Any]]:
        return self._end(
            [*self._close_open("completed"), *self._client_calls()], COMPLETED, RunStatus.COMPLETED, completed_at=now
        )

    def fail(self, code: str, message: str) -> tuple[list[Event], dict[str, Any]]:
        error = error_object(clean(code), clean(message))
        return self._end(self._close_open("incomplete"), FAILED, RunStatus.FAILED, error=error)

    def cancel(self) -> tuple[list[Event], dict[str, Any]]:  # by ``response.incomplete``: OpenAI has no event for it
        return self._end(self._close_open("incomplete"), INCOMPLETE, RunStatus.CANCELLED)

    # -- emissions -----------------------------------------------------------------------------------------------------

    def _steps(self, emission: object, path: Path) -> list[Step]:
        match emission:
            case str():
                return self._say("message", clean(emission), Origin(None, path))
            case Text() | Refusal() | Reasoning():
                name = type(emission).__name__
                origin = Origin(emissions.key(emission.key, f"{name}.key"), path)
                return self._say(emissions.KINDS[name], emissions.text(emission.delta, f"{name}.delta"), origin)
            case Annotation(values, key):
                return self._annotate(emissions.annotation(values), Origin(emissions.key(key, "Annotation.key"), path))
            case Close(key):
                return self._finish_saying(emissions.text(key, "Close.key"))
            case ToolCall():
                return self._call(emission, path)
            case ToolResult():
                return self._answer(emission, path)
            case ClientCall() | Approval():
                self._hold(emission, path)
            case Usage():
                self._usage = emissions.added(self._usage, emission)
            case State(values):
                self._asides.remember(emissions.snapshot(values), path)
            case _:
                raise EmissionError(
                    f"An agent cannot yield {type(emission).__name__}: see outlast.agent for what it can."
                )
        return []

    def _say(self, kind: str, delta: str, origin: Origin) -> list[Step]:
        if not delta:
            return []
        speaking, opening = self._speaker(kind, origin)
        return [*opening, items.SAYINGS[kind].add(speaking, delta)]

    def _annotate(self, annotation: dict[str, Any], origin: Origin) -> list[Step]:
        speaking, opening = self._speaker("message", origin)
        return [*opening, items.annotate(speaking, annotation)]

    def _speaker(self, kind: str, origin: Origin) -> tuple[Item, list[Step]]:
        """What is being said there; begun, if it is nothing of this kind."""
        speaking = self._speaking.get(origin.key)
        if speaking is not None and items.kind_of(speaking) == kind and speaking.origin.path == origin.path:
            return speaking, []
        steps = self._finish_saying(None) + (self._finish_saying(origin.key) if origin.key else [])
        saying = items.SAYINGS[kind]
        speaking, opening = saying.open(len(self._items), self._new_id(saying.prefix), origin)
        self._speaking[origin.key] = speaking
        self._items.append(speaking)
        return speaking, [*steps, *opening]

    def _finish_saying(self, key: str | None) -> list[Step]:
        speaking = self._speaking.pop(key, None)
        return items.close(speaking, "completed") if speaking else []

    def _call(self, call: ToolCall, path: Path) -> list[Step]:
        call = emissions.called(call)
        if call.call_id in self._calls:
            raise EmissionError(f"Two open tool calls have the call_id {call.call_id!r}.")
        steps = self._finish_saying(None)
        if self._run.tool_items is not ToolItems.MCP_CALL:
            self._calls[call.call_id] = call  # pairs are complete or absent: shown with the result, or not at all
            return steps
        origin = Origin(call.call_id, path)
        item, opening = items.open_mcp_call(
            len(self._items), self._new_id("mcp_"), origin, call.name, str(call.arguments)
        )
        self._calls[call.call_id] = item
        self._items.append(item)
        return [*steps, *opening]

    def _answer(self, result: ToolResult, path: Path) -> list[Step]:
        key, output, error = emissions.answered(result)
        if (call := self._calls.pop(key, None)) is None:
            raise EmissionError(f"A tool result has the call_id {result.call_id!r}, which no open tool call has.")
        origin = Origin(key, path)
        steps = self._finish_saying(None)
        if isinstance(call, Item):
            call.origin = origin  # what was called and what came of it are lost together, with the later step
            return [*steps, *items.answer_mcp_call(call, output, error)]
        if self._run.tool_items is ToolItems.HIDDEN:
            return steps
        # The agent's own id may come again, from a later attempt or a model that counts from 0 in each turn.
        call_id = self._new_id("call_")
        steps += self._add(items.function_call, "fc_", origin, call_id, call.name, str(call.arguments))
        answer = output if error is None else error
        return steps + self._add(items.function_call_output, "fco_", origin, call_id, answer)

    def _hold(self, call: ClientCall | Approval, path: Path) -> None:
        call = emissions.held(call)
        if emissions.held_id(call) in map(emissions.held_id, self._asides.held):
            raise EmissionError(f"Two {type(call).__name__}s have the id {emissions.held_id(call)[1]!r}.")
        self._asides.hold(call, path)

    def _client_calls(self) -> list[Step]:
        steps: list[Step] = []
        for held in self._asides.held:
            name, arguments = held.name, str(held.arguments)
            if isinstance(held, ClientCall):
                steps += self._add(items.function_call, "fc_", Origin(), held.call_id, name, arguments)
            else:
                item, opening = items.approval_request(len(self._items), held.approval_id, name, arguments)
                self._items.append(item)
                steps += opening
        return steps

    # -- items, numbers, endings ---------------------------------------------------------------------------------------

    def _new_id(self, prefix: str) -> str:
        """An id for the next item, whose index is the number of items ever added."""
        return self._make_id(prefix, len(self._items))

    def _add(
        self, make: Callable[..., tuple[Item, list[Step]]], prefix: str, origin: Origin, *values: str
    ) -> list[Step]:
        item, steps = make(len(self._items), self._new_id(prefix), origin, *values)
        self._items.append(item)
        return steps

    def _close_open(self, status: Closing) -> list[Step]:
        steps: list[Step] = []
        for item in self._items:
            if item.open:  # a call without its result is never complete, nor is what is said again
                complete = status if item.surviving and item.type != "mcp_call" else "incomplete"
                steps += items.close(item, complete)
        self._speaking.clear()
        self._calls.clear()
        return steps

    def _number(self, steps: Iterable[Step]) -> list[Event]:
        events: list[Event] = []
        for kind, fields in steps:
            if self._marker is not None:
                fields["outlast"], self._marker = self._marker, None
            if not kind.endswith(".delta"):
                fields["created_at"] = round(self._clock(), 3)
                fields |= {} if kind in TERMINAL_TYPES else self._tell()  # its response has it all
            events.append(Event(kind, self._next_seq, fields))
            self._next_seq += 1
        return events

    def _untold(self, asides: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        usage = {} if self._usage == self._told_usage else {"usage": emissions.counted(self._usage)}
        return usage | ({"asides": asides} if asides else {})

    def _tell(self) -> dict[str, Any]:
        untold = self._untold(self._asides.tell())
        self._told_usage = self._usage
        return untold

    def _mark(self, lost: Sequence[Item], asides: Sequence[str] = ()) -> None:
        """Say with the next event what is superseded: the ids of items, and those of asides."""
        for item in lost:
            item.surviving = False
        self._marker = self._marker or {"attempt": self._run.attempt, "superseded": []}
        self._marker["superseded"] += [item.id for item in lost]
        if asides:
            self._marker["asides"] = [*self._marker.get("asides", ()), *asides]

    def _end(self, steps: list[Step], kind: str, status: RunStatus, **more: Any) -> tuple[list[Event], dict[str, Any]]:
        output, usage = [item.data for item in self.surviving], emissions.counted(self._usage)
        outcome = Outcome(status, output=output, usage=usage, custom_outputs=self._asides.state, **more)
        response = response_object(self._run, outcome)
        return self._number([*steps, (kind, {"response": response})]), response
