"""One run's output as one attempt makes it: emissions in, numbered events out, the final response at the end."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from typing import Any

from outlast.agent import (
    AgentError,
    Approval,
    ClientCall,
    Reasoning,
    State,
    Text,
    ToolCall,
    ToolResult,
    Usage,
)
from outlast.shared.domain.events import COMPLETED, FAILED, IN_PROGRESS, INCOMPLETE, Event
from outlast.shared.domain.responses import Outcome, error_object, response_object, usage_object
from outlast.shared.domain.runs import Run, RunStatus, ToolItems
from outlast.shared.wire import clean, to_json

from . import items
from .items import Closing, Item, Step
from .replay import Past

NewId = Callable[[str], str]
"""Makes an item's id from its prefix; unique over all runs."""


class EmissionError(AgentError):
    """The agent emitted something that has no meaning."""

    def __init__(self, message: str) -> None:
        super().__init__(message, code="invalid_emission")


class Output:
    """Every method returns the events to append, numbered on from those before.

    At most one message or reasoning item is open at a time; server tool calls stay open until their results. Calls that
    the client must answer are held back to the end: what it has seen can then never be taken back.
    """

    def __init__(self, run: Run, new_id: NewId, past: Past | None = None) -> None:
        self._run = run
        self._new_id = new_id
        self._past = past or Past()
        self._items = list(self._past.items)
        self._next_seq = run.last_seq + 1
        self._speaking: Item | None = None
        self._calls: dict[str, Item | ToolCall] = {}
        self._held: list[ClientCall | Approval] = []
        self._usage = Usage()
        self._state: dict[str, Any] = {}
        self._marker: dict[str, Any] | None = None
        """The field that the first event of a later attempt carries."""

    def begin(self) -> list[Event]:
        """Say that the run is in progress, once; on a later attempt close what is open and supersede what was said."""
        steps: list[Step] = []
        if self._run.attempt > 1:
            self._marker = {"attempt": self._run.attempt, "superseded": self._past.surviving_ids}
            for item in self._items:
                item.surviving = False
        steps += self._close_open("incomplete")
        if not self._past.in_progress_written:
            steps.append((IN_PROGRESS, {"response": response_object(self._run)}))
        return self._number(steps)

    def emit(self, emission: object) -> list[Event]:
        """Raises EmissionError for what is not of the vocabulary or out of place."""
        return self._number(self._steps(emission))

    def complete(self, now: datetime) -> tuple[list[Event], dict[str, Any]]:
        steps = [*self._close_open("completed"), *self._client_calls()]
        return self._end(steps, COMPLETED, RunStatus.COMPLETED, completed_at=now)

    def fail(self, code: str, message: str) -> tuple[list[Event], dict[str, Any]]:
        steps = self._close_open("incomplete")
        return self._end(steps, FAILED, RunStatus.FAILED, error=error_object(code, message))

    def cancel(self) -> tuple[list[Event], dict[str, Any]]:
        """Ends with ``response.incomplete`` whose status is cancelled: OpenAI has no event for it."""
        return self._end(self._close_open("incomplete"), INCOMPLETE, RunStatus.CANCELLED)

    # -- emissions -----------------------------------------------------------------------------------------------------

    def _steps(self, emission: object) -> list[Step]:
        match emission:
            case str():
                return self._say("message", clean(emission))
            case Text(delta):
                return self._say("message", clean(delta))
            case Reasoning(delta):
                return self._say("reasoning", clean(delta))
            case ToolCall():
                return self._call(emission)
            case ToolResult():
                return self._answer(emission)
            case ClientCall() | Approval():
                _arguments(emission.arguments)  # fails here rather than at the end
                self._held.append(emission)
            case Usage():
                self._usage = _sum(self._usage, emission)
            case State(values):
                self._state.update(_jsonable(values))
            case _:
                raise EmissionError(
                    f"An agent cannot yield {type(emission).__name__}: see outlast.agent for what it can."
                )
        return []

    def _say(self, kind: str, delta: str) -> list[Step]:
        if not delta:
            return []
        steps: list[Step] = []
        if self._speaking is None or self._speaking.type != kind:
            steps += self._fall_silent()
            self._speaking, opening = (
                items.open_message(self._index, self._new_id("msg_"))
                if kind == "message"
                else items.open_reasoning(self._index, self._new_id("rs_"))
            )
            self._items.append(self._speaking)
            steps += opening
        add = items.text_delta if kind == "message" else items.reasoning_delta
        return [*steps, add(self._speaking, delta)]

    def _fall_silent(self) -> list[Step]:
        speaking, self._speaking = self._speaking, None
        return list(items.close(speaking, "completed")) if speaking else []

    def _call(self, call: ToolCall) -> list[Step]:
        if call.call_id in self._calls:
            raise EmissionError(f"Two open tool calls have the call_id {call.call_id!r}.")
        arguments = _arguments(call.arguments)
        steps = self._fall_silent()
        if self._run.tool_items is not ToolItems.MCP_CALL:
            self._calls[call.call_id] = call  # pairs are complete or absent: shown with the result, or not at all
            return steps
        item, opening = items.open_mcp_call(self._index, self._new_id("mcp_"), clean(call.name), arguments)
        self._calls[call.call_id] = item
        self._items.append(item)
        return [*steps, *opening]

    def _answer(self, result: ToolResult) -> list[Step]:
        call = self._calls.pop(result.call_id, None)
        if call is None:
            raise EmissionError(f"A tool result has the call_id {result.call_id!r}, which no open tool call has.")
        output = clean(result.output)
        error = None if result.error is None else clean(result.error)
        if isinstance(call, Item):
            return items.answer_mcp_call(call, output, error)
        if self._run.tool_items is ToolItems.HIDDEN:
            return []
        steps = self._add(items.function_call, "fc_", call.call_id, clean(call.name), _arguments(call.arguments))
        return steps + self._add(items.function_call_output, "fco_", call.call_id, output if error is None else error)

    def _client_calls(self) -> list[Step]:
        steps: list[Step] = []
        for held in self._held:
            arguments = _arguments(held.arguments)
            if isinstance(held, ClientCall):
                steps += self._add(items.function_call, "fc_", held.call_id, clean(held.name), arguments)
            else:
                item, opening = items.approval_request(self._index, held.approval_id, clean(held.name), arguments)
                self._items.append(item)
                steps += opening
        return steps

    # -- items, numbers, endings ---------------------------------------------------------------------------------------

    @property
    def _index(self) -> int:
        """The next output index: the number of items ever added."""
        return len(self._items)

    def _add(self, make: Callable[..., tuple[Item, list[Step]]], prefix: str, *values: str) -> list[Step]:
        item, steps = make(self._index, self._new_id(prefix), *values)
        self._items.append(item)
        return steps

    def _close_open(self, status: Closing) -> list[Step]:
        steps: list[Step] = []
        for item in self._items:
            if item.open:
                # A call without its result is never complete.
                steps += items.close(item, "incomplete" if item.type == "mcp_call" else status)
        self._speaking = None
        self._calls.clear()
        return steps

    def _number(self, steps: Iterable[Step]) -> list[Event]:
        events: list[Event] = []
        for kind, fields in steps:
            if self._marker is not None:
                fields["outlast"], self._marker = self._marker, None
            events.append(Event(kind, self._next_seq, fields))
            self._next_seq += 1
        return events

    def _end(self, steps: list[Step], kind: str, status: RunStatus, **more: Any) -> tuple[list[Event], dict[str, Any]]:
        usage = self._usage
        outcome = Outcome(
            status,
            output=[item.data for item in self._items if item.surviving],
            usage=usage_object(usage.input_tokens, usage.output_tokens, usage.cached_tokens, usage.reasoning_tokens),
            custom_outputs=self._state,
            **more,
        )
        response = response_object(self._run, outcome)
        return self._number([*steps, (kind, {"response": response})]), response


def _sum(a: Usage, b: Usage) -> Usage:
    return Usage(
        a.input_tokens + b.input_tokens,
        a.output_tokens + b.output_tokens,
        a.cached_tokens + b.cached_tokens,
        a.reasoning_tokens + b.reasoning_tokens,
    )


def _arguments(arguments: Mapping[str, Any] | str) -> str:
    return clean(arguments) if isinstance(arguments, str) else to_json(_jsonable(arguments))


def _jsonable(values: Mapping[str, Any]) -> dict[str, Any]:
    try:
        to_json(dict(values))
    except TypeError as error:
        raise EmissionError(f"A value cannot be kept as JSON: {error}.") from None
    return dict(values)
