"""Taking over: wherever an attempt stopped, the next one goes on with a stream that clients accept."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings, strategies as st

from outlast.agent import Approval, ClientCall, Reasoning, State, Text, ToolCall, ToolResult, Usage
from outlast.api.submissions import first_events
from outlast.shared.domain.runs import Run, ToolItems
from outlast.shared.wire import event_from
from outlast.worker.output.replay import replay
from tests.support.runs import a_submission
from tests.support.streams import a_run, attempt, check_stream, stream_of

KINDS = ("text", "text", "reasoning", "call", "call", "result", "failure", "client call", "approval", "usage", "state")
Emissions = list[object]


@st.composite
def agents(draw: st.DrawFn) -> Emissions:
    """What a correct agent may emit: results only for open calls, ids that come again, calls left open."""
    emissions: Emissions = []
    unanswered: list[str] = []
    for number, kind in enumerate(draw(st.lists(st.sampled_from(KINDS), max_size=12))):
        text = draw(st.text(max_size=3))
        match kind:
            case "text":
                emissions.append(Text(text))
            case "reasoning":
                emissions.append(Reasoning(text))
            case "call" if f"c{number % 4}" not in unanswered:
                unanswered.append(f"c{number % 4}")
                emissions.append(ToolCall("tool", {"text": text}, unanswered[-1]))
            case "result" | "failure" if unanswered:
                call_id = unanswered.pop(draw(st.integers(0, len(unanswered) - 1)))
                emissions.append(ToolResult(call_id, text, error=text if kind == "failure" else None))
            case "client call":
                emissions.append(ClientCall("ask", {"text": text}, f"client_{number}"))
            case "approval":
                emissions.append(Approval("ask", {"text": text}, f"mcpr_{number}"))
            case "usage":
                emissions.append(Usage(number, 1))
            case "state":
                emissions.append(State({text: number}))
            case _:
                pass
    return emissions


def take_over(run: Run, number: int, log: list[str], emissions: Emissions, *, end: bool) -> list[str]:
    """What the next attempt adds, after all that must hold for its first words."""
    items = added(log)
    survivors = [item for item in items if item not in superseded(log)]
    still_open = [item for item in items if item not in done(log)]

    lines = attempt(
        replace(run, attempt=number, last_seq=len(log) - 1), emissions, log=log, end="complete" if end else None
    )

    events = [json.loads(line) for line in lines]
    assert [event.get("outlast") for event in events[:1]] == [{"attempt": number, "superseded": survivors}][
        : len(lines)
    ]
    assert not any("outlast" in event for event in events[1:])
    first_new = next(
        (n for n, event in enumerate(events) if event["type"] == "response.output_item.added"), len(events)
    )
    assert done(lines[:first_new])[: len(still_open)] == still_open
    for event in events[:first_new]:
        if event["type"] == "response.output_item.done":
            assert event["item"].get("status") == "incomplete"
            assert said(event["item"]) == streamed(log, event["output_index"])
    return lines


def added(log: Sequence[str]) -> list[str]:
    return [e["item"]["id"] for e in map(json.loads, log) if e["type"] == "response.output_item.added"]


def done(log: Sequence[str]) -> list[str]:
    return [e["item"]["id"] for e in map(json.loads, log) if e["type"] == "response.output_item.done"]


def superseded(log: Sequence[str]) -> set[str]:
    return {item for e in map(json.loads, log) if "outlast" in e for item in e["outlast"]["superseded"]}


def said(item: dict[str, Any]) -> str:
    parts = item.get("content") or item.get("summary") or ()
    return item.get("arguments") or "".join(part["text"] for part in parts)


def streamed(log: Sequence[str], index: int) -> str:
    events = [json.loads(line) for line in log]
    return "".join(e["delta"] for e in events if e["type"].endswith(".delta") and e["output_index"] == index)


def anonymous(response: dict[str, Any]) -> dict[str, Any]:
    """The response without what is new in each attempt: ids of items and of pairs, and the attempt's number."""
    calls: dict[str, int] = {}
    output = [{**item, "id": None} for item in response["output"]]
    for item in output:
        if "call_id" in item:
            item["call_id"] = calls.setdefault(item["call_id"], len(calls))
    told = ("status", "usage", "custom_outputs", "error", "incomplete_details")
    return {"output": output, **{key: response[key] for key in told}}


@settings(max_examples=80, deadline=None)
@given(
    tool_items=st.sampled_from(ToolItems),
    lives=st.lists(st.tuples(agents(), st.floats(0, 1)), min_size=1, max_size=3),
    last=agents(),
)
def test_an_attempt_goes_on_wherever_the_ones_before_it_stopped(
    tool_items: ToolItems, lives: list[tuple[Emissions, float]], last: Emissions
) -> None:
    submission = a_submission(tool_items=tool_items)
    run = a_run(submission)
    log = first_events(submission).data.split("\n")
    for number, (emissions, cut) in enumerate(lives, 1):
        begins = number == 1
        lines = attempt(run, emissions, end=None) if begins else take_over(run, number, log, emissions, end=False)
        log += lines[: round(cut * len(lines))]
    log += take_over(run, len(lives) + 1, log, last, end=True)

    response = check_stream(log)[-1]["response"]
    assert response["attempt_number"] == len(lives) + 1
    assert anonymous(response) == anonymous(stream_of(last, tool_items=tool_items)[-1]["response"])


EVERYTHING: Emissions = [
    Reasoning("hm"), "Look: ", ToolCall("t", {"a": 1}, "c"), "wait", ToolResult("c", "1"), ToolCall("t", {}, "c"),
    ToolResult("c", error="no"), "Bye", State({"a": 1}), Usage(1, 1), ClientCall("f", {}, "x"), Approval("f", {}, "y"),
]  # fmt: skip


@pytest.mark.parametrize("tool_items", ToolItems)
def test_a_log_cut_at_every_event_is_gone_on_with(tool_items: ToolItems) -> None:
    submission = a_submission(tool_items=tool_items)
    run = a_run(submission)
    begun = first_events(submission).data.split("\n")
    whole = begun + attempt(run, EVERYTHING, end=None)
    uninterrupted = anonymous(stream_of(EVERYTHING, tool_items=tool_items)[-1]["response"])

    for cut in range(len(begun), len(whole) + 1):
        log = whole[:cut]
        events = check_stream(log + take_over(run, 2, log, EVERYTHING, end=True))
        assert anonymous(events[-1]["response"]) == uninterrupted


def test_an_item_of_the_past_knows_the_number_of_the_event_that_ended_it() -> None:
    submission = a_submission()
    log = first_events(submission).data.split("\n")
    log += attempt(a_run(submission), [Reasoning("hm"), ToolCall("t", {}, "c"), "text"], end=None)
    before_the_text_ends = log[: 1 + max(n for n, line in enumerate(log) if "response.output_text.delta" in line)]

    numbers = [item.done_seq for item in replay(map(event_from, before_the_text_ends)).items]

    ended = {e["output_index"]: e["sequence_number"] for e in map(json.loads, log) if e["type"].endswith("item.done")}
    assert numbers == [ended[0], None, None]
