"""Outputs driven by hand, and what every stream of events must satisfy whatever the agent did."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from typing import Any, Literal, get_args
from uuid import UUID

import httpx
import openai
from openai.types.responses import ParsedResponse, ResponseStreamEvent

from outlast.api.submissions import first_events
from outlast.shared.domain.events import TERMINAL_TYPES, Event
from outlast.shared.domain.ids import item_id
from outlast.shared.domain.runs import Run, RunStatus, Submission
from outlast.shared.output import Output
from outlast.shared.output.replay import replay
from outlast.shared.wire import event_from, event_line, to_json
from tests.support.runs import a_submission

# The SDK's union of events, by type.
EVENT_CLASSES = {
    get_args(member.model_fields["type"].annotation)[0]: member for member in get_args(get_args(ResponseStreamEvent)[0])
}
_AT_MOST_ONCE = ("response.created", "response.queued", "response.in_progress")

new_id = partial(item_id, UUID(int=1))


def a_run(submission: Submission | None = None, **changes: Any) -> Run:
    """A run that a worker has just claimed."""
    submission = submission or a_submission()
    run = Run(
        run_id=submission.run_id,
        thread_id=submission.thread_id,
        thread=submission.thread,
        principal=submission.principal,
        agent=submission.agent,
        status=RunStatus.IN_PROGRESS,
        attempt=1,
        created_at=submission.created_at,
        deadline_at=None,
        background=submission.background,
        store=submission.store,
        tool_items=submission.tool_items,
        request=submission.request,
        last_seq=1,
    )
    return replace(run, **changes)


End = Literal["complete", "fail", "cancel"] | None


def attempt(run: Run, emissions: Iterable[object], *, log: Sequence[str] = (), end: End = "complete") -> list[str]:
    """The lines that one attempt adds to the log; without an end its worker died just before it."""
    output = Output(run, partial(item_id, run.run_id), lambda: 0.0, replay(event_from(line) for line in log))
    events: list[Event] = output.begin()
    for emission in emissions:
        events += output.emit(emission)
    events += output.settle("incomplete" if end in ("fail", "cancel") else "completed")
    match end:
        case "complete":
            events += output.complete(datetime.now(UTC))[0]
        case "fail":
            events += output.fail("agent_error", "It went wrong.")[0]
        case "cancel":
            events += output.cancel()[0]
        case None:
            pass
    return [event_line(event) for event in events]


def stream_of(emissions: Iterable[object], *, end: End = "complete", **changes: Any) -> list[dict[str, Any]]:
    """The whole log of a run with one attempt, checked."""
    submission = a_submission(**changes)
    lines = [*first_events(submission).data.split("\n"), *attempt(a_run(submission), emissions, end=end)]
    return check_stream(lines)


def check_stream(lines: Sequence[str]) -> list[dict[str, Any]]:
    """The events of a complete log, after all that must hold for each of them."""
    events: list[dict[str, Any]] = [json.loads(line) for line in lines]
    types = [event["type"] for event in events]
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    assert [kind in TERMINAL_TYPES for kind in types] == [False] * (len(events) - 1) + [True]
    assert types[: len(_AT_MOST_ONCE)] == list(_AT_MOST_ONCE)
    assert not set(types[len(_AT_MOST_ONCE) :]) & set(_AT_MOST_ONCE)
    for event in events:
        EVENT_CLASSES[event["type"]].model_validate(_as_the_sdk_types_it(event), strict=True)
    _check_items(events)
    check_accumulator(events)
    return events


def _as_the_sdk_types_it(event: dict[str, Any]) -> dict[str, Any]:
    """Its error codes are OpenAI's own; ours are free text, which every client takes."""
    response = event.get("response")
    if response is None or response["error"] is None:
        return event
    return {**event, "response": {**response, "error": {**response["error"], "code": "server_error"}}}


def _check_items(events: Sequence[dict[str, Any]]) -> None:
    """Each item is added once, under the next index, and done once; the answer is those that no attempt took back."""
    added = [event for event in events if event["type"] == "response.output_item.added"]
    done = [event for event in events if event["type"] == "response.output_item.done"]
    assert [event["output_index"] for event in added] == list(range(len(added)))
    ids = [event["item"]["id"] for event in added]
    assert len(set(ids)) == len(ids)
    assert sorted(event["output_index"] for event in done) == list(range(len(added)))
    told: list[tuple[str, int]] = []
    for event in events:
        if "item_id" in event:
            assert event["item_id"] == ids[event["output_index"]]
            if not event["type"].endswith((".delta", ".annotation.added")):
                told.append((event["type"], event["output_index"]))
    assert len(set(told)) == len(told)
    for event in done:
        assert _streamed(events, event["output_index"]) in (None, _said(event["item"]))
    superseded = {name for event in events if "outlast" in event for name in event["outlast"]["superseded"]}
    in_order = sorted(done, key=lambda event: event["output_index"])
    assert events[-1]["response"]["output"] == [e["item"] for e in in_order if e["item"]["id"] not in superseded]


def check_accumulator(events: Sequence[dict[str, Any]]) -> None:
    """The unmodified openai client puts the events together to what they say at the end."""
    snapshots: dict[int, str] = {}
    with _client(events) as client, client.responses.stream(model="test", input="hi") as stream:
        for event in stream:
            if event.type == "response.output_text.delta" or event.type == "response.function_call_arguments.delta":
                snapshots[event.output_index] = event.snapshot
        if events[-1]["type"] == "response.completed":
            assert _plain(stream.get_final_response()) == events[-1]["response"]
    for event in events:
        if event["type"] == "response.output_item.done" and event["output_index"] in snapshots:
            assert snapshots[event["output_index"]] == _said(event["item"])


def _client(events: Sequence[dict[str, Any]]) -> openai.OpenAI:
    frames = [f"event: {event['type']}\ndata: {to_json(event)}\n\n" for event in events]
    body = "".join([*frames, "data: [DONE]\n\n"]).encode()
    answer = httpx.MockTransport(
        lambda _request: httpx.Response(200, headers={"content-type": "text/event-stream"}, content=body)
    )
    http = httpx.Client(transport=answer)
    return openai.OpenAI(base_url="http://test", api_key="none", max_retries=0, http_client=http)  # type: ignore[arg-type]


def _plain(response: ParsedResponse[Any]) -> dict[str, Any]:
    """The response without what the client adds when it parses."""
    plain = response.to_dict()
    for item in plain["output"]:  # type: ignore[union-attr]
        item.pop("parsed_arguments", None)
        for part in item.get("content") or ():
            part.pop("parsed", None)
    return plain


def _streamed(events: Sequence[dict[str, Any]], index: int) -> str | None:
    """What came of this item in pieces."""
    pieces = [e["delta"] for e in events if e["type"].endswith(".delta") and e["output_index"] == index]
    return "".join(pieces) if pieces else None


def _said(item: dict[str, Any]) -> str:
    parts = item.get("content") or item.get("summary") or ()
    said = "".join(part.get("text", part.get("refusal")) for part in parts)
    return item.get("arguments", said)
