"""The state of an output, rebuilt from its log alone: what an attempt needs to continue where another one stopped."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import astuple, dataclass, field
from typing import Any

from outlast.agent import Usage
from outlast.shared.domain import events
from outlast.shared.domain.events import Event

from .asides import an_aside
from .emissions import usage_from
from .items import Item, Origin


@dataclass(frozen=True, slots=True)
class Kept:
    """What an attempt has stored beside the log."""

    kept_seq: int
    """The last number of the log then."""
    values: Mapping[str, Any]
    """The agent's own."""
    untold: Mapping[str, Any]
    """`Output.untold()`."""


@dataclass(slots=True)
class Past:
    """What the log of a run holds so far. ``items`` are all that were ever added, in order of their index."""

    items: list[Item] = field(default_factory=list[Item])
    asides: list[Item] = field(default_factory=list[Item])
    asides_told: int = 0
    """How many of them events tell of; the others were stored beside the log."""
    usage: Usage = field(default_factory=Usage)
    usage_told: Usage = field(default_factory=Usage)
    """What events tell of it."""
    dropped: set[str] = field(default_factory=set[str])
    """Ids of asides that were superseded."""
    corrected: bool = False
    """Whether an attempt has taken back what it had said itself."""
    attempt: int = 1
    """The latest that has written anything."""
    in_progress_written: bool = False
    last_seq: int = -1
    saved: Mapping[str, Any] = field(default_factory=dict[str, Any])
    """What the agent has saved."""

    @property
    def said(self) -> Sequence[Item]:
        """All that a later attempt keeps or supersedes, by its ids."""
        return [*self.items, *self.asides]


def replay(log: Iterable[Event], kept: Kept | None = None) -> Past:
    past = Past()
    for event in log:
        _apply(past, event)
    past.asides_told, past.usage_told = len(past.asides), past.usage
    if kept is not None:
        past.saved = kept.values
        _hear(past, kept.untold, kept.kept_seq)
    return past


def _apply(past: Past, event: Event) -> None:
    fields = event.fields
    past.last_seq = event.sequence_number
    if "outlast" in fields:
        _supersede(past, fields["outlast"])
    _hear(past, fields, event.sequence_number)
    match event.type:
        case events.IN_PROGRESS:
            past.in_progress_written = True
        case "response.output_item.added":
            past.items.append(Item(fields["output_index"], fields["item"], origin=_origin(event)))
        case "response.output_item.done":
            item = _item(past, event)
            item.data, item.open, item.origin = fields["item"], False, _origin(event)
            item.done_seq = event.sequence_number
        case "response.content_part.added":
            _item(past, event).data["content"] = [fields["part"]]
        case "response.output_text.delta" | "response.refusal.delta" | "response.reasoning_summary_text.delta":
            _item(past, event).pieces.append(fields["delta"])
        case "response.output_text.annotation.added":
            _item(past, event).data["content"][0]["annotations"].append(fields["annotation"])
        case "response.reasoning_summary_part.added":
            _item(past, event).data["summary"] = [fields["part"]]
        case "response.mcp_call_arguments.delta" | "response.function_call_arguments.delta":
            _item(past, event).data["arguments"] = fields["delta"]  # there is one, and it holds them all
        case _:
            pass
    if "item_id" in fields:
        _item(past, event).told.add(event.type)


def _origin(event: Event) -> Origin:
    return Origin(event.fields.get("key"), event.fields.get("path", ()))


def _item(past: Past, event: Event) -> Item:
    index: int = event.fields["output_index"]
    return past.items[index]


def _hear(past: Past, told: Mapping[str, Any], sequence_number: int) -> None:
    if "usage" in told:
        past.usage = max(past.usage, usage_from(told["usage"]), key=astuple)  # it only grows
    known = {aside.id: aside for aside in past.asides} if "asides" in told else {}
    for aside in told.get("asides", ()):
        if earlier := known.get(aside["id"]):  # stored beside the log, and later told by an event
            earlier.done_seq = sequence_number
        elif aside["id"] not in past.dropped:
            past.asides.append(an_aside(aside, sequence_number))


def _supersede(past: Past, marker: Mapping[str, Any]) -> None:
    past.corrected |= marker["attempt"] == past.attempt and bool(marker["superseded"])
    past.attempt = marker["attempt"]
    for item in past.items:
        if item.id in marker["superseded"]:
            item.surviving = False
    past.dropped |= set(marker.get("asides", ()))
    for aside in past.asides:
        if aside.id in past.dropped:
            aside.surviving = False
