"""What an agent may not emit: it is told what and why, and its run can still be ended."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest

from outlast.agent import (
    AgentError,
    Annotation,
    Approval,
    ClientCall,
    Reasoning,
    State,
    Text,
    ToolCall,
    ToolResult,
    Usage,
)
from outlast.api.submissions import first_events
from outlast.shared.domain.runs import ToolItems
from outlast.shared.output import EmissionError, Output
from outlast.shared.wire import event_line
from tests.support.runs import a_submission
from tests.support.streams import a_run, check_stream, new_id

CLOCK = ToolCall("clock", {"zone": "UTC"}, "c1")
NOON = ToolResult("c1", "12:00")


def deep(levels: int) -> dict[str, Any]:
    value: dict[str, Any] = {}
    for _ in range(levels):
        value = {"": value}
    return value


REFUSED: dict[str, tuple[list[object], str]] = {
    "nothing": ([None], "cannot yield NoneType"),
    "a number": ([1.5], "cannot yield float"),
    "a dict": ([{"type": "text"}], "cannot yield dict"),
    "a class": ([Text], "cannot yield type"),
    "bytes": ([b"text"], "cannot yield bytes"),
    "text that is not": ([Text(None)], "Text.delta must be str, not NoneType"),  # type: ignore[arg-type]
    "reasoning that is a list": ([Reasoning(["a"])], "Reasoning.delta must be str, not list"),  # type: ignore[arg-type]
    "a result that is a dict": ([CLOCK, ToolResult("c1", {})], "ToolResult.output must be str"),  # type: ignore[arg-type]
    "an error that is one": ([CLOCK, ToolResult("c1", error=OSError())], "ToolResult.error must be"),  # type: ignore[arg-type]
    "an annotation of no type": ([Annotation({})], "An annotation's type is one of url_citation, file_citation"),
    "an annotation that is text": ([Annotation("x")], "kept as JSON"),  # type: ignore[arg-type]
    "an annotation without its address": ([Annotation({"type": "url_citation"})], "The url of a url_citation must be"),
    "an annotation at no place": (
        [Annotation({"type": "url_citation", "url": "", "title": "", "end_index": "1"})],
        "The end_index of",
    ),
    "a name that is none": ([ToolCall(None, {}, "c1")], "ToolCall.name must be str"),  # type: ignore[arg-type]
    "a call without id": ([ToolCall("t", {}, None)], "ToolCall.call_id must be str"),  # type: ignore[arg-type]
    "a client's call without id": ([ClientCall("t", {}, 1)], "ClientCall.call_id must be str"),  # type: ignore[arg-type]
    "an approval without id": ([Approval("t", {}, None)], "Approval.approval_id must be str"),  # type: ignore[arg-type]
    "no arguments": ([ToolCall("t", None, "c1")], "kept as JSON"),  # type: ignore[arg-type]
    "arguments that are a list": ([ToolCall("t", [1], "c1")], "kept as JSON"),  # type: ignore[arg-type]
    "a result without call": ([NOON], "'c1', which no open tool call has"),
    "a second result": ([CLOCK, NOON, NOON], "'c1', which no open tool call has"),
    "two open calls of one id": ([CLOCK, ToolCall("dice", {}, "c1")], "Two open tool calls have the call_id 'c1'"),
    "two client's calls of one id": ([ClientCall("f", {}, "c"), ClientCall("g", {}, "c")], "Two ClientCalls have"),
    "two approvals of one id": ([Approval("f", {}, "a"), Approval("f", {}, "a")], "Two Approvals have the id 'a'"),
    "arguments that are no JSON": ([ToolCall("t", {"a": object()}, "c1")], "kept as JSON"),
    "arguments for the client": ([ClientCall("t", {"a": Decimal(1)}, "c1")], "kept as JSON"),
    "arguments to approve": ([Approval("t", {"a": {1}}, "c1")], "kept as JSON"),
    "state that is no JSON": ([State({"a": object()})], "kept as JSON"),
    "state with other keys": ([State({1: 2})], "kept as JSON"),  # type: ignore[dict-item]
    "state deeper than an event may be": ([State(deep(252))], "kept as JSON"),
    "state that is too large a number": ([State({"a": 2**70})], "kept as JSON"),
    "usage that is unknown": ([Usage(input_tokens=None)], "None is not a number"),  # type: ignore[arg-type]
    "usage of half a token": ([Usage(output_tokens=0.5)], "0.5 is not a number"),  # type: ignore[arg-type]
    "usage below zero": ([Usage(cached_tokens=-1)], "-1 is not a number"),
}


@pytest.mark.parametrize("tool_items", [ToolItems.MCP_CALL, ToolItems.FUNCTION_CALL])
@pytest.mark.parametrize("name", REFUSED)
def test_what_has_no_meaning_is_refused_by_name_and_the_run_can_still_end(name: str, tool_items: ToolItems) -> None:
    emissions, message = REFUSED[name]
    submission = a_submission(tool_items=tool_items)
    output = Output(a_run(submission), new_id, lambda: 0.0)
    events = [*output.begin(), *output.emit("before")]

    with pytest.raises(EmissionError, match=message) as refusal:
        for emission in emissions:
            events += output.emit(emission)

    assert isinstance(refusal.value, AgentError) and refusal.value.code == "invalid_emission"
    events += output.fail(refusal.value.code, refusal.value.message)[0]
    check_stream([*first_events(submission).data.split("\n"), *(event_line(event) for event in events)])
