"""The state of an output, rebuilt from its log alone: what an attempt needs to continue where another one stopped."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from outlast.agent import Usage
from outlast.shared.domain import events
from outlast.shared.domain.events import Event

from .asides import an_aside
from .emissions import usage_from
from .items import Item, Origin


@dataclass(slots=True)
class Past:
    """What the log of a run holds so far. ``items`` are all that were ever added, in order of their index."""

    items: list[Item] = field(default_factory=list[Item])
    asides: list[Item] = field(default_factory=list[Item])
    usage: Usage = field(default_factory=Usage)
    attempt: int = 1
    """The latest that has written anything."""
    in_progress_written: bool = False

    @property
    def said(self) -> Sequence[Item]:
        """All that a later attempt keeps or supersedes, by its ids."""
        return [*self.items, *self.asides]


def replay(log: Iterable[Event]) -> Past:
    past = Past()
    for event in log:
        _apply(past, event)
    return past


def _apply(past: Past, event: Event) -> None:
    fields = event.fields
    if "outlast" in fields:
        _supersede(past, fields["outlast"])
    if "usage" in fields:
        past.usage = usage_from(fields["usage"])
    for aside in fields.get("asides", ()):
        past.asides.append(an_aside(len(past.asides), aside, event.sequence_number))
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
        case "response.output_text.delta" | "response.reasoning_summary_text.delta":
            _item(past, event).pieces.append(fields["delta"])
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


def _supersede(past: Past, marker: Mapping[str, Any]) -> None:
    past.attempt = marker["attempt"]
    for item in past.items:
        if item.id in marker["superseded"]:
            item.surviving = False
    for number in marker.get("asides", ()):
        past.asides[number].surviving = False
