"""What a client received, held against the log. Pure: frames in, sentences out."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from outlast.infra.cli.client import event_of
from outlast.shared.domain.events import COMPLETED, TERMINAL_TYPES

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that must hold, and what was found."""

    holds: bool
    text: str


def findings(received: Sequence[bytes], log: Sequence[bytes]) -> list[Finding]:
    """What must hold of any stream that was lost and resumed. Frames are whole, each with the empty line at its end."""
    events = [event for frame in received if (event := event_of(frame)) is not None]
    return [_numbered(events), _same(received, log), _ended(events), _whole(events)]


def _numbered(events: Sequence[Json]) -> Finding:
    for expected, event in enumerate(events):
        if event["sequence_number"] != expected:
            return Finding(False, f"event {expected} was expected, event {event['sequence_number']} came")
    return Finding(
        bool(events), f"{len(events)} events, numbered 0 to {len(events) - 1}: none is missing, none is doubled"
    )


def _same(received: Sequence[bytes], log: Sequence[bytes]) -> Finding:
    size = sum(map(len, received))
    for ours, stored in itertools.zip_longest(received, log):
        if ours != stored:
            return Finding(False, f"{_named(ours)} was received where the log has {_named(stored)}")
    return Finding(size > 0, f"{size:,} bytes received, the same as the log's when it is read from 0")


def _named(frame: bytes | None) -> str:
    if frame is None:
        return "nothing"
    event = event_of(frame)
    return "the end of the stream" if event is None else f"event {event['sequence_number']} ({len(frame)} bytes)"


def _ended(events: Sequence[Json]) -> Finding:
    terminal = [event for event in events if event["type"] in TERMINAL_TYPES]
    if [event["type"] for event in terminal] == [COMPLETED] and terminal[0] is events[-1]:
        return Finding(True, f"one terminal event, and it is the last: {COMPLETED}")
    told = ", ".join(f"{event['type']} ({event['sequence_number']})" for event in terminal) or "none"
    return Finding(False, f"the terminal events are: {told}")


def _whole(events: Sequence[Json]) -> Finding:
    """The pieces of the answer, without those that were taken back, are the answer in the final response."""
    superseded = set(superseded_items(events))
    pieces = [e for e in events if e["type"] == "response.output_text.delta" and e["item_id"] not in superseded]
    put_together = "".join(piece["delta"] for piece in pieces)
    final = text_of(events[-1]["response"]["output"]) if events and "response" in events[-1] else None
    if put_together == final:
        words = len(put_together.split())
        return Finding(words > 0, f"the streamed words, without those taken back, are the final answer: {words} words")
    return Finding(False, "the streamed words, without those taken back, are not the final answer")


def superseded_items(events: Iterable[Json]) -> list[str]:
    """The ids of the items that later attempts have taken back."""
    return [name for event in events if "outlast" in event for name in event["outlast"]["superseded"]]


def text_of(output: Iterable[Json]) -> str:
    messages = [item for item in output if item["type"] == "message"]
    return "".join(part["text"] for item in messages for part in item["content"] if part["type"] == "output_text")
