"""One run's output as one attempt makes it: emissions in, numbered events out, the final response at the end."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
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
from outlast.shared.wire import clean, from_json, to_json

from . import items
from .items import Closing, Item, Step
from .replay import Past

NewId = Callable[[str, int], str]
"""Makes an id from its prefix and an output index; unique over all runs."""


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
        self._make_id = new_id
        self._past = past or Past()
        self._items = list(self._past.items)
        self._next_seq = run.last_seq + 1
        self._speaking: Item | None = None
        self._calls: dict[str, Item | ToolCall] = {}
        self._held: dict[str, ClientCall | Approval] = {}
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

    def settle(self, status: Closing) -> list[Event]:
        """Close what is open, ahead of the end: a long text is then stored by itself, not in one piece with the end."""
        return self._number(self._close_open(status))

    def complete(self, now: datetime) -> tuple[list[Event], dict[str, Any]]:
        steps = [*self._close_open("completed"), *self._client_calls()]
        return self._end(steps, COMPLETED, RunStatus.COMPLETED, completed_at=now)

    def fail(self, code: str, message: str) -> tuple[list[Event], dict[str, Any]]:
        steps = self._close_open("incomplete")
        return self._end(steps, FAILED, RunStatus.FAILED, error=error_object(clean(code), clean(message)))

    def cancel(self) -> tuple[list[Event], dict[str, Any]]:
        """Ends with ``response.incomplete`` whose status is cancelled: OpenAI has no event for it."""
        return self._end(self._close_open("incomplete"), INCOMPLETE, RunStatus.CANCELLED)

    # -- emissions -----------------------------------------------------------------------------------------------------

    def _steps(self, emission: object) -> list[Step]:
        match emission:
            case str():
                return self._say("message", clean(emission))
            case Text(delta):
                return self._say("message", _text(delta, "Text.delta"))
            case Reasoning(delta):
                return self._say("reasoning", _text(delta, "Reasoning.delta"))
            case ToolCall():
                return self._call(emission)
            case ToolResult():
                return self._answer(emission)
            case ClientCall() | Approval():
                self._hold(emission)
            case Usage():
                self._usage = _sum(self._usage, emission)
            case State(values):
                self._state.update(_snapshot(values))
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
        return items.close(speaking, "completed") if speaking else []

    def _call(self, call: ToolCall) -> list[Step]:
        call = replace(
            call,
            name=_text(call.name, "ToolCall.name"),
            arguments=_arguments(call.arguments),
            call_id=_text(call.call_id, "ToolCall.call_id"),
        )
        if call.call_id in self._calls:
            raise EmissionError(f"Two open tool calls have the call_id {call.call_id!r}.")
        steps = self._fall_silent()
        if self._run.tool_items is not ToolItems.MCP_CALL:
            self._calls[call.call_id] = call  # pairs are complete or absent: shown with the result, or not at all
            return steps
        item, opening = items.open_mcp_call(self._index, self._new_id("mcp_"), call.name, str(call.arguments))
        self._calls[call.call_id] = item
        self._items.append(item)
        return [*steps, *opening]

    def _answer(self, result: ToolResult) -> list[Step]:
        output = _text(result.output, "ToolResult.output")
        error = None if result.error is None else _text(result.error, "ToolResult.error")
        call = self._calls.pop(_text(result.call_id, "ToolResult.call_id"), None)
        if call is None:
            raise EmissionError(f"A tool result has the call_id {result.call_id!r}, which no open tool call has.")
        steps = self._fall_silent()
        if isinstance(call, Item):
            return [*steps, *items.answer_mcp_call(call, output, error)]
        if self._run.tool_items is ToolItems.HIDDEN:
            return steps
        # The agent's own id may come again, from a later attempt or a model that counts from 0 in each turn.
        call_id = self._new_id("call_")
        steps += self._add(items.function_call, self._new_id("fc_"), call_id, call.name, str(call.arguments))
        answer = output if error is None else error
        return steps + self._add(items.function_call_output, self._new_id("fco_"), call_id, answer)

    def _hold(self, call: ClientCall | Approval) -> None:
        name, arguments = _text(call.name, f"{type(call).__name__}.name"), _arguments(call.arguments)
        if isinstance(call, ClientCall):
            key = _text(call.call_id, "ClientCall.call_id")
            call = ClientCall(name, arguments, key)
        else:
            key = _text(call.approval_id, "Approval.approval_id")
            call = Approval(name, arguments, key)
        if key in self._held:
            raise EmissionError(f"Two {type(call).__name__}s have the id {key!r}.")
        self._held[key] = call

    def _client_calls(self) -> list[Step]:
        steps: list[Step] = []
        for key, held in self._held.items():
            if isinstance(held, ClientCall):
                steps += self._add(items.function_call, self._new_id("fc_"), key, held.name, str(held.arguments))
            else:
                steps += self._add(items.approval_request, key, held.name, str(held.arguments))
        return steps

    # -- items, numbers, endings ---------------------------------------------------------------------------------------

    @property
    def _index(self) -> int:
        """The next output index: the number of items ever added."""
        return len(self._items)

    def _new_id(self, prefix: str) -> str:
        """An id for the next item."""
        return self._make_id(prefix, self._index)

    def _add(self, make: Callable[..., tuple[Item, list[Step]]], item_id: str, *values: str) -> list[Step]:
        item, steps = make(self._index, item_id, *values)
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
    for count in (b.input_tokens, b.output_tokens, b.cached_tokens, b.reasoning_tokens):
        if type(count) is not int or not 0 <= count < 2**53:
            raise EmissionError(f"Usage counts tokens: {count!r} is not a number of them.")
    return Usage(
        a.input_tokens + b.input_tokens,
        a.output_tokens + b.output_tokens,
        a.cached_tokens + b.cached_tokens,
        a.reasoning_tokens + b.reasoning_tokens,
    )


def _text(value: object, name: str) -> str:
    """The value, if it is text, as UTF-8 can hold it."""
    if not isinstance(value, str):
        raise EmissionError(f"{name} must be str, not {type(value).__name__}.")
    return clean(value)


def _arguments(arguments: Mapping[str, Any] | str) -> str:
    return clean(arguments) if isinstance(arguments, str) else to_json(_snapshot(arguments))


def _snapshot(values: Mapping[str, Any]) -> dict[str, Any]:
    """The values as plain JSON, whatever the agent does to them later; checked as deep as they will lie in an event."""
    try:
        return from_json(to_json({"response": {"values": dict(values)}}))["response"]["values"]
    except (TypeError, ValueError) as error:
        raise EmissionError(f"A value cannot be kept as JSON: {error}.") from None
