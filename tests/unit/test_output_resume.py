"""Taking over: wherever an attempt stopped, the next one goes on with a stream that clients accept."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
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
from outlast.api.submissions import first_events
from outlast.shared.domain.events import Event
from outlast.shared.domain.ids import item_id
from outlast.shared.domain.runs import ToolItems
from outlast.shared.output import EmissionError, Output
from outlast.shared.output.items import Path
from outlast.shared.output.replay import Kept, replay
from outlast.shared.wire import event_from, event_line
from tests.support.runs import a_submission
from tests.support.streams import End, a_run, attempt, check_stream, stream_of
from tests.support.takeovers import anonymous, ended

Emissions = list[object]
EVERYTHING: Emissions = [
    Reasoning("hm"), "Look: ", ToolCall("t", {"a": 1}, "c"), "wait", ToolResult("c", "1"), ToolCall("t", {}, "c"),
    ToolResult("c", error="no"), "Bye", Annotation({"type": "file_path", "file_id": "f1", "index": 0}), " now",
    State({"a": 1}), Refusal("No more."), Usage(1, 1), ClientCall("f", {}, "x"), Approval("f", {}, "y"),
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
        again = attempt(replace(run, attempt=2, last_seq=cut - 1), EVERYTHING, log=log)
        events = check_stream(log + again)
        assert json.loads(again[0])["outlast"] == {"attempt": 2, "superseded": added(log)} | dropped(log)
        assert anonymous(events[-1]["response"]) == uninterrupted
        open_ones = [name for name in added(log) if name not in done(log)]
        assert [e["item"].get("status") for e in closed(again)[: len(open_ones)]] == ["incomplete"] * len(open_ones)
        assert [e["item"]["id"] for e in closed(again)[: len(open_ones)]] == open_ones


def added(log: Sequence[str]) -> list[str]:
    return [e["item"]["id"] for e in map(json.loads, log) if e["type"] == "response.output_item.added"]


def closed(log: Sequence[str]) -> list[dict[str, Any]]:
    return [e for e in map(json.loads, log) if e["type"] == "response.output_item.done"]


def done(log: Sequence[str]) -> list[str]:
    return [e["item"]["id"] for e in closed(log)]


def dropped(log: Sequence[str]) -> dict[str, Any]:
    asides = [aside["id"] for event in map(json.loads, log) for aside in event.get("asides", ())]
    return {"asides": asides} if asides else {}


def test_an_item_of_the_past_knows_the_number_of_the_event_that_ended_it() -> None:
    submission = a_submission()
    log = first_events(submission).data.split("\n")
    log += attempt(a_run(submission), [Reasoning("hm"), ToolCall("t", {}, "c"), "text"], end=None)
    before_the_text_ends = log[: 1 + max(n for n, line in enumerate(log) if "response.output_text.delta" in line)]

    numbers = [item.done_seq for item in replay(map(event_from, before_the_text_ends)).items]

    ended = {e["output_index"]: e["sequence_number"] for e in closed(log)}
    assert numbers == [ended[0], None, None]


# -- attempts, one after another ---------------------------------------------------------------------------------------

A: Path
B: Path
A, B = ([{"node": name, "task": f"t-{name}", "step": 1}] for name in "ab")
FINISHED, LOST = A, B


class Attempts:
    """A run; each next attempt finds the one before it killed."""

    def __init__(self) -> None:
        submission = a_submission()
        self.run = a_run(submission)
        self.lines = first_events(submission).data.split("\n")
        self.number = 0
        self.kept: Kept | None = None

    def keep(self) -> None:
        """As at the end of a step."""
        self.kept = Kept(len(self.lines) - 1, {}, self.output.untold())

    def next(self, *emissions: object, path: Path = (), survives: Path | None = FINISHED, begins: bool = True) -> None:
        """An attempt that says this in that step. What ``survives`` has said before survives; with None, everything."""
        self.number += 1
        self._first = len(self.lines)
        past = replay(map(event_from, self.lines), self.kept)
        run = replace(self.run, attempt=self.number, last_seq=len(self.lines) - 1)
        self.output = Output(run, partial(item_id, run.run_id), lambda: 0.0, past)
        kept = {item.id for item in past.said if item.origin.path == survives}
        if begins:
            self._store(self.output.begin(None if survives is None else kept))
        self.say(*emissions, path=path)

    def say(self, *emissions: object, path: Path = ()) -> None:
        for emission in emissions:
            self._store(self.output.emit(emission, path))

    def end(self, end: str = "complete") -> dict[str, Any]:
        events, response = ended(self.output, end)
        self._store(events)
        check_stream(self.lines)
        return response

    def _store(self, events: Sequence[Event]) -> None:
        self.lines += [event_line(event) for event in events]

    @property
    def events(self) -> list[dict[str, Any]]:
        """Those of the latest attempt."""
        return [json.loads(line) for line in self.lines[self._first :]]


def texts(response: dict[str, Any]) -> list[tuple[str, str]]:
    return [(item["content"][0]["text"], item["status"]) for item in response["output"] if item["type"] == "message"]


def test_steps_that_speak_at_the_same_time_without_keys_have_messages_of_their_own() -> None:
    run = Attempts()
    run.next()
    run.say("a1 ", path=A)
    run.say("b", path=B)
    run.say("a2", path=A)
    run.next("b again", path=B, survives=A)

    assert [text for text, _ in texts(run.end())] == ["a1 ", "a2", "b again"]


def test_what_a_finished_step_has_left_open_is_whole() -> None:
    run = Attempts()
    run.next(Text("all of it", "key"), path=FINISHED)
    run.next()

    assert texts(run.end("cancel")) == [("all of it", "completed")]


ENDS: list[End] = ["complete", "fail", "cancel"]


@pytest.mark.parametrize("end", ENDS)
def test_usage_is_what_all_attempts_have_spent_however_the_run_ends(end: End) -> None:
    run = Attempts()
    run.next(Usage(1, 2, 3, 4), "a")
    run.next(Usage(10, 20, 30, 40), "b", Usage(100), "c", Close("none"), Reasoning("d"))
    run.next(Usage(1000))
    usage = run.end(str(end))["usage"]

    assert (usage["input_tokens"], usage["output_tokens"], usage["total_tokens"]) == (1111, 22, 1133)
    assert usage["input_tokens_details"]["cached_tokens"] == 33
    assert usage["output_tokens_details"]["reasoning_tokens"] == 44


def test_usage_is_told_by_the_next_event_and_only_when_it_has_changed() -> None:
    run = Attempts()
    run.next("a", Usage(1), "b", Reasoning("c"), Usage(0), "d", Usage(2))

    assert [(e["type"], e["usage"]["input_tokens"]) for e in run.events if "usage" in e] == [
        ("response.output_text.done", 1)
    ]


def test_values_of_finished_steps_are_kept_and_those_of_lost_ones_are_not() -> None:
    run = Attempts()
    run.next()
    run.say(State({"kept": 1, "both": "finished"}), "a", path=FINISHED)
    run.say(State({"lost": 2, "both": "lost", "again": 1}), "b", path=LOST)
    run.next(State({"again": 2}), "b", path=LOST)

    assert run.end()["custom_outputs"] == {"kept": 1, "both": "finished", "again": 2}


def test_values_that_were_lost_once_do_not_come_back_when_their_step_is_finished() -> None:
    run = Attempts()
    run.next(State({"lost": 1}), "a", path=LOST)
    run.next(survives=FINISHED)
    run.next(survives=LOST)

    assert run.end()["custom_outputs"] == {}


def test_what_no_event_told_of_is_kept_beside_the_log_until_one_does() -> None:
    run = Attempts()
    run.next(State({"a": 1}), ClientCall("f", {}, "c"), Usage(5), path=FINISHED)
    run.keep()
    run.next(path=FINISHED)
    run.next("now it is told", path=LOST)
    run.next()
    response = run.end()

    assert (response["custom_outputs"], response["usage"]["input_tokens"]) == ({"a": 1}, 5)
    assert [item["call_id"] for item in response["output"]] == ["c"]
    assert sum("asides" in json.loads(line) for line in run.lines) == 1


def test_what_was_kept_beside_the_log_and_lost_does_not_come_back() -> None:
    run = Attempts()
    run.next(State({"lost": 1}), path=LOST)
    run.keep()
    run.next(survives=FINISHED)
    run.say("goes on")
    run.next(survives=LOST)

    assert run.end()["custom_outputs"] == {}


def test_what_an_agent_said_before_it_saved_is_apart_from_what_it_said_after() -> None:
    run = Attempts()
    run.next(State({"before": 1}))
    run.keep()
    run.say(State({"after": 2}), "told by this")
    assert run.kept is not None

    past = replay(map(event_from, run.lines), run.kept)
    assert [(aside.data["values"], aside.done_seq) for aside in past.asides] == [
        ({"before": 1}, run.kept.kept_seq),
        ({"after": 2}, run.kept.kept_seq + 1),
    ]


def test_a_function_agent_begins_again_without_values() -> None:
    run = Attempts()
    run.next(State({"a": 1}), "a")
    run.next(State({"b": 1}), "a", survives=[{}])

    assert run.end()["custom_outputs"] == {"b": 1}


def test_a_large_value_is_told_once_and_by_no_more_than_one_event() -> None:
    run = Attempts()
    large = State({"large": "x" * 100_000})
    run.next(large, "a", large, Reasoning("b"), large, State({"small": 1}), "c", large, State({"small": 2}))
    run.say(State({"small": 3}), Reasoning("d"))
    response = run.end()

    told = [aside["values"] for event in run.events for aside in event.get("asides", ())]
    assert told == [dict(large.values), {"small": 1}, {"small": 3}]
    assert response["custom_outputs"] == {**large.values, "small": 3}


def test_a_call_for_the_client_that_a_finished_step_made_is_asked_at_the_end() -> None:
    run = Attempts()
    run.next()
    run.say(ClientCall("f", {"a": 1}, "kept"), "a", path=FINISHED)
    run.say(Approval("g", {}, "mcpr_lost"), ClientCall("f", {}, "lost"), "b", path=LOST)
    run.next(ClientCall("f", {}, "lost"), path=LOST)
    with pytest.raises(EmissionError, match="Two ClientCalls have the id 'kept'"):
        run.say(ClientCall("f", {}, "kept"))
    calls = [item for item in run.end()["output"] if item["type"] != "message"]

    assert [(item["call_id"], item["arguments"]) for item in calls] == [("kept", '{"a":1}'), ("lost", "{}")]


@pytest.mark.parametrize("end", ["fail", "cancel"])
def test_all_that_was_said_stays_when_the_agent_is_not_started_again(end: str) -> None:
    run = Attempts()
    run.next("said", ToolCall("t", {}, "c"), "half", State({"a": 1}), Usage(1), Reasoning("hm"))
    run.next(survives=None)
    response = run.end(end)

    assert run.events[0]["outlast"] == {"attempt": 2, "superseded": []}
    assert texts(response) == [("said", "completed"), ("half", "completed")]
    assert [item["status"] for item in response["output"] if item["type"] != "message"] == ["incomplete", "incomplete"]
    assert (response["custom_outputs"], response["usage"]["input_tokens"]) == ({"a": 1}, 1)


@pytest.mark.parametrize("end", ENDS)
def test_a_last_event_that_is_an_attempts_first_says_what_is_superseded(end: End) -> None:
    run = Attempts()
    run.next(Text("a", "k"), Close("k"))
    run.next(survives=[{}])
    run.end(str(end))

    [event] = run.events
    assert event["outlast"] == {"attempt": 2, "superseded": added(run.lines)}


def test_an_attempt_that_breaks_before_it_has_begun_takes_nothing_back() -> None:
    run = Attempts()
    run.next(Text("a", "k"), Close("k"), "half")
    run.next(begins=False)
    response = run.end("fail")

    assert run.events[0]["outlast"] == {"attempt": 2, "superseded": []}
    assert texts(response) == [("a", "completed"), ("half", "incomplete")]


@pytest.mark.parametrize("end", ENDS)
def test_a_run_may_end_before_anything_is_said(end: End) -> None:
    run = Attempts()
    run.next()
    run.end(str(end))

    assert [event["type"] for event in run.events[:-1]] == ["response.in_progress"]


def test_what_survives_keeps_its_annotations_and_refusals() -> None:
    submission = a_submission()
    log = first_events(submission).data.split("\n")
    page = {"type": "url_citation", "url": "https://example.org", "title": "Goats"}
    said: Emissions = [Text("Goats", "a"), Annotation(page, "a"), Refusal("No.", "b"), Text("!", "a")]
    log += attempt(a_run(submission), said, end=None)

    past = replay(map(event_from, log))
    output = Output(
        replace(a_run(submission), attempt=2, last_seq=past.last_seq),
        partial(item_id, submission.run_id),
        lambda: 0.0,
        past,
    )
    output.begin({item.id for item in past.items})

    first, second = (item.data["content"][0] for item in output.surviving)
    assert (first["text"], first["annotations"]) == ("Goats!", [{**page, "start_index": 5, "end_index": 5}])
    assert second == {"type": "refusal", "refusal": "No."}
