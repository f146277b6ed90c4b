"""From what an agent emits to items, events and the final response. `stream_of` checks what holds for every stream."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Any

import pytest

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
from outlast.shared.domain.runs import ToolItems
from outlast.shared.output import Output
from tests.support.streams import End, a_run, new_id, stream_of

CLOCK = ToolCall("clock", {"zone": "UTC"}, "c1")
NOON = ToolResult("c1", "12:00")


def summary(item: dict[str, Any]) -> str:
    """An item in one line: its type, what it says, and its status when that is not `completed`."""
    match item["type"]:
        case "message":
            said = "".join(part.get("text", part.get("refusal")) for part in item["content"])
        case "reasoning":
            said = "".join(part["text"] for part in item["summary"])
        case "mcp_call":
            result = item["error"]["content"][0]["text"] if item["error"] else repr(item["output"])
            said = f"{item['name']}({item['arguments']}) -> {result}"
        case "function_call" | "mcp_approval_request":
            said = f"{item['name']}({item['arguments']})"
        case _:
            said = item["output"]
    status = item.get("status", "completed")
    return f"{item['type']}: {said}" + ("" if status == "completed" else f" [{status}]")


def answer(events: Sequence[dict[str, Any]]) -> list[str]:
    return [summary(item) for item in events[-1]["response"]["output"]]


def types(events: Sequence[dict[str, Any]]) -> list[str]:
    """The types after ``in_progress``, without what all of them begin with."""
    return [event["type"].removeprefix("response.") for event in events[3:]]


MCP_CALL = ["output_item.added", "mcp_call.in_progress", "mcp_call_arguments.delta", "mcp_call_arguments.done"]
MESSAGE = ["output_item.added", "content_part.added", "output_text.delta"]
MESSAGE_DONE = ["output_text.done", "content_part.done", "output_item.done"]
FUNCTION_CALL = [
    "output_item.added", "function_call_arguments.delta", "function_call_arguments.done", "output_item.done",
]  # fmt: skip

PAGE = {"type": "url_citation", "url": "https://example.org", "title": "Goats"}

EVENTS: dict[str, tuple[list[object], list[str]]] = {
    "nothing": ([], []),
    "a message of two pieces": (["a", "b"], [*MESSAGE, "output_text.delta", *MESSAGE_DONE]),
    "a refusal": (
        [Refusal("I "), Refusal("will not.")],
        [
            "output_item.added", "content_part.added", "refusal.delta", "refusal.delta",
            "refusal.done", "content_part.done", "output_item.done",
        ],
    ),
    "an annotation": (["a", Annotation(PAGE)], [*MESSAGE, "output_text.annotation.added", *MESSAGE_DONE]),
    "reasoning": (
        [Reasoning("hm")],
        [
            "output_item.added", "reasoning_summary_part.added", "reasoning_summary_text.delta",
            "reasoning_summary_text.done", "reasoning_summary_part.done", "output_item.done",
        ],
    ),
    "a tool that answers": ([CLOCK, NOON], [*MCP_CALL, "mcp_call.completed", "output_item.done"]),
    "a tool that fails": (
        [CLOCK, ToolResult("c1", error="broken")], [*MCP_CALL, "mcp_call.failed", "output_item.done"],
    ),
    "a message that a tool call ends": (
        ["a", CLOCK, NOON], [*MESSAGE, *MESSAGE_DONE, *MCP_CALL, "mcp_call.completed", "output_item.done"],
    ),
    "a call for the client": ([ClientCall("f", {}, "c1")], FUNCTION_CALL),
    "an approval": ([Approval("f", {}, "mcpr_1")], ["output_item.added", "output_item.done"]),
    "usage and state": ([Usage(1, 2), State({"a": 1})], []),
}  # fmt: skip


@pytest.mark.parametrize("name", EVENTS)
def test_each_kind_of_item_has_its_events_in_one_order(name: str) -> None:
    emissions, expected = EVENTS[name]
    assert types(stream_of(emissions)) == [*expected, "completed"]


ANSWERS: dict[str, tuple[list[object], list[str]]] = {
    "text alone": (["Hello ", Text("world"), "."], ["message: Hello world."]),
    "reasoning, then text": ([Reasoning("h"), Reasoning("m"), "Yes."], ["reasoning: hm", "message: Yes."]),
    "an answer, then a refusal": (["Well. ", Refusal("No.")], ["message: Well. ", "message: No."]),
    "reasoning again": (["a", Reasoning("b"), "c"], ["message: a", "reasoning: b", "message: c"]),
    "a tool between two messages": (
        ["Look. ", CLOCK, NOON, "It is ", "noon."],
        ["message: Look. ", """mcp_call: clock({"zone":"UTC"}) -> '12:00'""", "message: It is noon."],
    ),
    "parallel calls answered in the other order": (
        [CLOCK, ToolCall("dice", {}, "c2"), ToolResult("c2", "4"), NOON],
        ["""mcp_call: clock({"zone":"UTC"}) -> '12:00'""", "mcp_call: dice({}) -> '4'"],
    ),
    "text while a tool runs": (
        [CLOCK, "Wait", "...", NOON, "Noon."],
        ["""mcp_call: clock({"zone":"UTC"}) -> '12:00'""", "message: Wait...", "message: Noon."],
    ),
    "a tool that fails": (
        [CLOCK, ToolResult("c1", "ignored", error="no clock"), "Sorry."],
        ["""mcp_call: clock({"zone":"UTC"}) -> no clock [failed]""", "message: Sorry."],
    ),
    "a call id that comes again": (
        [ToolCall("dice", {}, "c"), ToolResult("c", "1"), ToolCall("dice", {}, "c"), ToolResult("c", "2")],
        ["mcp_call: dice({}) -> '1'", "mcp_call: dice({}) -> '2'"],
    ),
    "a tool call without its result": ([CLOCK, "Bye."], [
        """mcp_call: clock({"zone":"UTC"}) -> None [incomplete]""", "message: Bye.",
    ]),
    "calls for the client come last, in their order": (
        [Approval("rm", {"path": "/"}, "mcpr_9"), "I ask ", ClientCall("f", '{"a": 1}', "c1"), "you."],
        ["message: I ask you.", 'mcp_approval_request: rm({"path":"/"})', 'function_call: f({"a": 1})'],
    ),
    "empty pieces": (["", Text(""), Reasoning(""), "a", "", Reasoning(""), "b"], ["message: ab"]),
    "only empty pieces": (["", Reasoning("")], []),
    "characters cut in half": (["a\ud83d", ToolCall("t\ud800", "{\udfff}", "c\ud800"), ToolResult("c\ud800", "\udc00")],
        ["message: a?", "mcp_call: t?({?}) -> '?'"],
    ),
    "NUL and other control characters": (["a\x00b\x1f\u2028\x85\r\n"], ["message: a\x00b\x1f\u2028\x85\r\n"]),
    "arguments as text stay as they are": ([ToolCall("t", '{ "b":2,\n"a":1 }', "c1"), NOON], [
        "mcp_call: t({ \"b\":2,\n\"a\":1 }) -> '12:00'",
    ]),
    "arguments of any mapping": ([ToolCall("t", MappingProxyType({"é": [None, True]}), "c1"), NOON], [
        """mcp_call: t({"é":[null,true]}) -> '12:00'""",
    ]),
}  # fmt: skip


@pytest.mark.parametrize("name", ANSWERS)
def test_emissions_become_the_items_of_the_answer(name: str) -> None:
    emissions, expected = ANSWERS[name]
    assert answer(stream_of(emissions)) == expected


PAIR = ['function_call: clock({"zone":"UTC"})', "function_call_output: 12:00"]
SHOWN: dict[ToolItems, list[str]] = {
    ToolItems.MCP_CALL: ["message: a", """mcp_call: clock({"zone":"UTC"}) -> '12:00'""", "message: b", "message: c"],
    ToolItems.FUNCTION_CALL: ["message: a", "message: b", *PAIR, "message: c"],
    ToolItems.HIDDEN: ["message: a", "message: b", "message: c"],
}


@pytest.mark.parametrize("tool_items", ToolItems)
def test_tools_that_the_server_runs_are_shown_as_the_run_asks(tool_items: ToolItems) -> None:
    assert answer(stream_of(["a", CLOCK, "b", NOON, "c"], tool_items=tool_items)) == SHOWN[tool_items]


@pytest.mark.parametrize("tool_items", [ToolItems.FUNCTION_CALL, ToolItems.HIDDEN])
def test_a_pair_is_complete_or_absent(tool_items: ToolItems) -> None:
    assert answer(stream_of(["a", CLOCK], tool_items=tool_items)) == ["message: a"]


def test_a_failure_in_a_pair_is_its_output() -> None:
    events = stream_of([CLOCK, ToolResult("c1", error="broken")], tool_items=ToolItems.FUNCTION_CALL)
    assert answer(events) == ['function_call: clock({"zone":"UTC"})', "function_call_output: broken"]


def test_call_ids_on_the_wire_are_new_for_each_pair_and_the_clients_own_for_its_calls() -> None:
    calls = [ToolCall("dice", {}, "c"), ToolResult("c", "1"), ToolCall("dice", {}, "c"), ToolResult("c", "2")]
    events = stream_of([*calls, ClientCall("f", {}, "c")], tool_items=ToolItems.FUNCTION_CALL)

    ids = [item["call_id"] for item in events[-1]["response"]["output"]]
    assert ids[0] == ids[1] and ids[2] == ids[3] and ids[4] == "c"
    assert len(set(ids)) == 3


@pytest.mark.parametrize("end", ["complete", "fail", "cancel"])
def test_calls_for_the_client_are_written_whole_with_the_end_or_never(end: End) -> None:
    events = stream_of([ClientCall("f", {"a": 1}, "c1"), "text", Approval("g", {}, "mcpr_1")], end=end)

    calls = [*FUNCTION_CALL, "output_item.added", "output_item.done"] if end == "complete" else []
    last = {"complete": "completed", "fail": "failed", "cancel": "incomplete"}[end or ""]
    assert types(events) == [*MESSAGE, *MESSAGE_DONE, *calls, last]


def test_settling_ahead_of_the_end_changes_nothing_but_when_it_is_written() -> None:
    def events(*, settled: bool) -> list[tuple[str, int]]:
        output = Output(a_run(), new_id, lambda: 0.0)
        found = [*output.begin(), *output.emit("text"), *output.emit(CLOCK), *output.emit(ClientCall("f", {}, "c"))]
        found += output.settle("completed") if settled else []
        found += output.complete(datetime.now(UTC))[0]
        return [(event.type, event.sequence_number) for event in found]

    assert events(settled=True) == events(settled=False)


@pytest.mark.parametrize(("end", "status"), [("fail", "failed"), ("cancel", "cancelled")])
def test_a_run_that_fails_or_is_cancelled_keeps_what_was_said_as_incomplete_items(end: End, status: str) -> None:
    events = stream_of([Reasoning("hm"), "done", CLOCK, "un", "finished"], end=end)

    assert answer(events) == [
        "reasoning: hm", "message: done", """mcp_call: clock({"zone":"UTC"}) -> None [incomplete]""",
        "message: unfinished [incomplete]",
    ]  # fmt: skip
    response = events[-1]["response"]
    assert response["status"] == status
    assert response["incomplete_details"] is None and response["completed_at"] is None


def test_reasoning_that_was_cut_is_incomplete() -> None:
    assert answer(stream_of([Reasoning("hm")], end="cancel")) == ["reasoning: hm [incomplete]"]


def test_a_failure_says_why_in_all_four_keys_and_a_cancelled_run_has_no_error() -> None:
    failed, cancelled = stream_of([], end="fail")[-1], stream_of([], end="cancel")[-1]

    assert failed["response"]["error"] == {
        "code": "agent_error", "message": "It went wrong.", "type": "server_error", "param": None,
    }  # fmt: skip
    assert cancelled["type"] == "response.incomplete" and cancelled["response"]["error"] is None


def test_a_message_of_failure_may_be_cut_in_half() -> None:
    _, response = Output(a_run(), new_id, lambda: 0.0).fail("code\ud800", "why\udfff")
    assert response["error"]["message"] == "why?" and json.dumps(response, ensure_ascii=False).encode()


@pytest.mark.parametrize("end", ["complete", "fail", "cancel"])
def test_usage_is_summed_and_state_merged_by_key_however_the_run_ends(end: End) -> None:
    emissions = [Usage(1, 2, 3, 4), State({"a": 1, "b": {"x": 1}}), Usage(10, 20, 30, 40), State({"b": {"y": 2}})]
    response = stream_of(emissions, end=end)[-1]["response"]

    assert response["usage"] == {
        "input_tokens": 11, "input_tokens_details": {"cached_tokens": 33, "cache_write_tokens": 0},
        "output_tokens": 22, "output_tokens_details": {"reasoning_tokens": 44}, "total_tokens": 33,
    }  # fmt: skip
    assert response["custom_outputs"] == {"a": 1, "b": {"y": 2}}


def test_usage_is_never_null() -> None:
    assert all(event["response"]["usage"]["total_tokens"] == 0 for event in stream_of([]) if "response" in event)


def test_what_an_agent_changes_after_it_was_emitted_does_not_change_the_answer() -> None:
    arguments: dict[str, Any] = {"a": [1]}
    values: dict[str, Any] = {"deep": {"list": [1]}}

    def emissions():
        yield ToolCall("t", arguments, "c1")
        yield ClientCall("f", arguments, "c2")
        yield State(values)
        arguments["a"].append(object())
        values["deep"]["list"].append(object())
        yield NOON

    for tool_items in (ToolItems.MCP_CALL, ToolItems.FUNCTION_CALL):
        arguments["a"], values["deep"]["list"] = [1], [1]
        events = stream_of(emissions(), tool_items=tool_items)
        assert [item["arguments"] for item in events[-1]["response"]["output"] if "arguments" in item] == [
            '{"a":[1]}', '{"a":[1]}',
        ]  # fmt: skip
        assert events[-1]["response"]["custom_outputs"] == {"deep": {"list": [1]}}


def test_what_is_taken_back_goes_with_the_reasoning_before_it() -> None:
    output = Output(a_run(), new_id, lambda: 0.0)
    for emission in (Text("stays", "a"), Close("a"), Reasoning("hm", "b"), Text("half", "b")):
        output.emit(emission)
    events = output.withdraw("b")
    output.emit(Text("whole", "c"))
    _, response = output.complete(datetime.now(UTC))

    assert len(events[0].fields["outlast"]["superseded"]) == 2
    assert [summary(item) for item in response["output"]] == ["message: stays", "message: whole"]


def test_annotations_belong_to_the_text_that_is_being_written_under_their_key() -> None:
    placed = {**PAGE, "start_index": 0, "end_index": 5}
    file = {"type": "file_citation", "file_id": "f1", "filename": "a.md", "index": 0}
    emissions = [
        Text("Goats", "a"), Text("eat", "b"), Annotation(PAGE, "b"), Annotation(placed, "a"), Text(" grass", "b"),
        Annotation(file, "b"),
    ]  # fmt: skip
    events = stream_of(emissions)

    first, second = (item["content"][0]["annotations"] for item in events[-1]["response"]["output"])
    assert first == [placed]
    assert second == [{**PAGE, "start_index": 3, "end_index": 3}, file]
    told = [event for event in events if event["type"] == "response.output_text.annotation.added"]
    assert [(event["output_index"], event["annotation_index"], event["annotation"]) for event in told] == [
        (1, 0, second[0]), (0, 0, placed), (1, 1, file)
    ]  # fmt: skip
