"""What must hold of a run's log, whatever happened to those who wrote it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from tests.chaos.checker.evidence import Stored

_BEGINNING = ("response.created", "response.queued", "response.in_progress")
_TERMINAL = ("response.completed", "response.failed", "response.incomplete")
_ENDS = {"cancelled": "response.incomplete"}
_DELTA = "response.output_text.delta"


@dataclass(slots=True)
class _Item:
    id: str
    said: list[str] = field(default_factory=list[str])
    done: dict[str, Any] | None = None


def check(run: Stored) -> Iterator[str]:
    """A sentence for each thing that is wrong."""
    yield from _rows(run)
    events = [json.loads(line) for line in run.lines]
    numbers = [event["sequence_number"] for event in events]
    if numbers != list(range(len(events))):
        wrong = next(i for i, number in enumerate([*numbers, None]) if i != number)
        yield f"its events are not numbered 0, 1, 2 …: at place {wrong} is {numbers[wrong : wrong + 1]}"
    if not events:
        return
    if run.last_seq != numbers[-1]:
        yield f"its head says {run.last_seq} and its last event {numbers[-1]}"
    yield from _course(run, [event["type"] for event in events])
    yield from Reading(run).read(events)


def _rows(run: Stored) -> Iterator[str]:
    expected = 0
    for first, last, data in run.rows:
        if first != expected or data.count("\n") != last - first:
            count = data.count("\n") + 1
            yield f"a row of its log is for {first} to {last}, comes after {expected - 1} and has {count} events"
        expected = last + 1


def _course(run: Stored, types: list[str]) -> Iterator[str]:
    begun = [kind for kind in types if kind in _BEGINNING]
    never_began = run.status == "cancelled" and _BEGINNING[-1] not in begun
    beginning = _BEGINNING[:-1] if never_began else _BEGINNING
    if tuple(begun) != beginning or tuple(types[: len(begun)]) != tuple(begun):
        yield f"it does not begin with created, queued and in_progress, once each: {types[:4]}, {len(begun)} in all"
    ends = [place for place, kind in enumerate(types) if kind in _TERMINAL]
    if ends != [len(types) - 1]:
        yield f"it has {len(ends)} terminal events, at {ends} of {len(types)}"
    elif types[-1] != _ENDS.get(run.status, f"response.{run.status}"):
        yield f"its last event is {types[-1]}, its status {run.status}"


class Reading:
    """A log read from its beginning, as a client reads it."""

    def __init__(self, run: Stored) -> None:
        self._run = run
        self._items: list[_Item] = []
        self._superseded: set[str] = set()
        self._attempt = 1

    def read(self, events: list[dict[str, Any]]) -> Iterator[str]:
        for event in events:
            if "outlast" in event:
                yield from self._mark(event)
            yield from self._item(event)
        last = events[-1].get("response")
        if last is not None:
            yield from self._answer(last)

    def _mark(self, event: dict[str, Any]) -> Iterator[str]:
        place, marker = event["sequence_number"], event["outlast"]
        if not self._attempt <= marker["attempt"] <= self._run.attempt:
            yield f"{place} is of attempt {marker['attempt']}, after {self._attempt} of {self._run.attempt}"
        self._attempt = marker["attempt"]
        known = {item.id for item in self._items}
        for name in marker["superseded"]:
            if name not in known:
                yield f"{place} supersedes {name}, which has not been added"
            if name in self._superseded:
                yield f"{place} supersedes {name} once more"
            self._superseded.add(name)

    def _item(self, event: dict[str, Any]) -> Iterator[str]:
        if "output_index" not in event:
            return
        place, index, kind = event["sequence_number"], event["output_index"], event["type"]
        if kind == "response.output_item.added":
            if index != len(self._items) or event["item"]["id"] in {item.id for item in self._items}:
                yield f"{place} adds {event['item']['id']} as {index}, after {len(self._items)} items"
            self._items.append(_Item(event["item"]["id"]))
            return
        if index >= len(self._items):
            yield f"{place} is about item {index}, which has not been added"
            return
        item = self._items[index]
        if event.get("item_id", item.id) != item.id:
            yield f"{place} is about {event['item_id']} at {index}, where {item.id} is"
        if item.done is not None:
            yield f"{place} is about {item.id}, which is done"
        if kind == _DELTA:
            item.said.append(event["delta"])
            yield from self._words(place, event["delta"])
        elif kind == "response.output_item.done":
            item.done = event["item"]
            yield from self._text(place, item)

    def _words(self, place: int, delta: str) -> Iterator[str]:
        for word in delta.split():
            attempt, token, *_ = word.split("|")
            if token != self._run.token:
                yield f"{place} says {word}, a word of another run"
            elif int(attempt) != self._attempt:
                yield f"{place} says {word} where attempt {self._attempt} writes"

    def _text(self, place: int, item: _Item) -> Iterator[str]:
        content = (item.done or {}).get("content") or ()
        text = "".join(part["text"] for part in content)
        if text != "".join(item.said):
            yield f"{place} ends {item.id} with another text than was streamed"

    def _answer(self, response: dict[str, Any]) -> Iterator[str]:
        for item in self._items:
            if item.done is None:
                yield f"{item.id} is never done"
        surviving = [item.done for item in self._items if item.id not in self._superseded]
        if response["output"] != surviving:
            output = [item["id"] for item in response["output"]]
            yield f"the answer has {output}, the stream leaves {[item and item['id'] for item in surviving]}"
        if response != self._run.response:
            yield "the stored response is another one than the last event's"
