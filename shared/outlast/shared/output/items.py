"""Output items and the events that tell of them, each kind in the one order that every client understands."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

SERVER_LABEL = "outlast"

Step = tuple[str, dict[str, Any]]
"""An event still without its number: type and fields."""
Closing = Literal["completed", "incomplete", "failed"]
Path = Sequence[Mapping[str, Any]]
"""The step of a graph that says something: ``node``, ``task`` and ``step`` in each graph around it, outermost first."""


@dataclass(frozen=True, slots=True)
class Origin:
    """Where an item comes from. Its events tell it, since a later attempt has nothing else to know it by."""

    key: str | None = None
    """What the agent calls it: the key of a text, the call id of a tool call."""
    path: Path = ()
    """Empty when the agent has no steps."""

    @property
    def fields(self) -> dict[str, Any]:
        return ({"key": self.key} if self.key else {}) | ({"path": self.path} if self.path else {})


@dataclass(slots=True)
class Item:
    """An item of the output and its place in the stream."""

    index: int
    data: dict[str, Any]
    open: bool = True
    surviving: bool = True
    """Still part of the answer: no later attempt has superseded it."""
    pieces: list[str] = field(default_factory=list[str])
    """Text streamed so far; joined when the item closes (adding to a string copies all of it each time)."""
    told: set[str] = field(default_factory=set[str])
    """Types of the events that an earlier attempt wrote about what is inside it."""
    origin: Origin = Origin()
    done_seq: int | None = None
    """Number of the event that ended it, when an earlier attempt wrote that event."""

    @property
    def id(self) -> str:
        return self.data["id"]

    @property
    def type(self) -> str:
        return self.data["type"]

    def added(self) -> Step:
        return "response.output_item.added", {"output_index": self.index, "item": dict(self.data)} | self.origin.fields

    def done(self, status: Closing | None = None, **changes: Any) -> Step:
        self.open = False
        self.data.update(changes)
        if status is not None:
            self.data["status"] = status
        return "response.output_item.done", {"output_index": self.index, "item": dict(self.data)} | self.origin.fields

    def at(self, **fields: Any) -> dict[str, Any]:
        return {"item_id": self.id, "output_index": self.index, **fields}


def arranged(items: Sequence[Item], ranks: Mapping[str, int]) -> list[Item]:
    """The surviving items by the ranks of their keys; one without a rank stays behind what it followed."""
    ranked: list[tuple[int, Item]] = []
    rank = -1
    for item in items:
        if item.surviving:
            rank = ranks.get(item.origin.key or "", rank)
            ranked.append((rank, item))
    return [item for _, item in sorted(ranked, key=lambda pair: pair[0])]


def close(item: Item, status: Closing) -> list[Step]:
    """End an item as it stands, with exactly the text streamed so far. What has been told is not told again."""
    match item.type:
        case "message":
            steps = _close_message(item, status)
        case "reasoning":
            steps = _close_reasoning(item, status)
        case _:
            steps = _close_call(item, status)
    return [step for step in steps if step[0] not in item.told]


# -- messages ----------------------------------------------------------------------------------------------------------


def open_message(index: int, item_id: str, origin: Origin) -> tuple[Item, list[Step]]:
    part: dict[str, Any] = {"type": "output_text", "text": "", "annotations": [], "logprobs": []}
    return _open_message(index, item_id, origin, part)


def open_refusal(index: int, item_id: str, origin: Origin) -> tuple[Item, list[Step]]:
    """A message in which the model says that it will not answer."""
    return _open_message(index, item_id, origin, {"type": "refusal", "refusal": ""})


def _open_message(index: int, item_id: str, origin: Origin, part: dict[str, Any]) -> tuple[Item, list[Step]]:
    data: dict[str, Any] = {
        "id": item_id,
        "type": "message",
        "role": "assistant",
        "status": "in_progress",
        "content": [],
    }
    item = Item(index, data, origin=origin)
    added = item.added()
    item.data["content"] = [copy.deepcopy(part)]
    return item, [added, ("response.content_part.added", item.at(content_index=0, part=part))]


def text_delta(item: Item, delta: str) -> Step:
    item.pieces.append(delta)
    return "response.output_text.delta", item.at(content_index=0, delta=delta, logprobs=[])


def refusal_delta(item: Item, delta: str) -> Step:
    item.pieces.append(delta)
    return "response.refusal.delta", item.at(content_index=0, delta=delta)


def annotate(item: Item, annotation: dict[str, Any]) -> Step:
    """Add one. A citation that names no place in the text is at the end of what has been said so far."""
    annotations: list[dict[str, Any]] = item.data["content"][0]["annotations"]
    if annotation["type"] in ("url_citation", "container_file_citation"):
        end = sum(map(len, item.pieces))
        annotation = {"start_index": end, "end_index": end, **annotation}
    annotations.append(annotation)
    fields = item.at(content_index=0, annotation_index=len(annotations) - 1, annotation=annotation)
    return "response.output_text.annotation.added", fields


def _close_message(item: Item, status: Closing) -> Iterator[Step]:
    content: list[dict[str, Any]] = item.data["content"]
    if not content:  # a worker died between the item and its part
        yield item.done(status)
        return
    part, text = content[0], "".join(item.pieces)
    if part["type"] == "refusal":
        part["refusal"] = text
        yield "response.refusal.done", item.at(content_index=0, refusal=text)
    else:
        part["text"] = text
        yield "response.output_text.done", item.at(content_index=0, text=text, logprobs=[])
    yield "response.content_part.done", item.at(content_index=0, part=dict(part))
    yield item.done(status)


# -- reasoning, as a summary: the one form that every client and the schema accept -------------------------------------


def open_reasoning(index: int, item_id: str, origin: Origin) -> tuple[Item, list[Step]]:
    item = Item(index, {"id": item_id, "type": "reasoning", "summary": []}, origin=origin)
    added = item.added()
    part = {"type": "summary_text", "text": ""}
    item.data["summary"] = [dict(part)]
    return item, [added, ("response.reasoning_summary_part.added", item.at(summary_index=0, part=part))]


def reasoning_delta(item: Item, delta: str) -> Step:
    item.pieces.append(delta)
    return "response.reasoning_summary_text.delta", item.at(summary_index=0, delta=delta)


def _close_reasoning(item: Item, status: Closing) -> Iterator[Step]:
    if item.data["summary"]:
        part: dict[str, Any] = item.data["summary"][0]
        part["text"] = "".join(item.pieces)
        yield "response.reasoning_summary_text.done", item.at(summary_index=0, text=part["text"])
        yield "response.reasoning_summary_part.done", item.at(summary_index=0, part=dict(part))
    yield item.done(None if status == "completed" else status)


@dataclass(frozen=True, slots=True)
class Saying:
    """How one kind of what is said piece by piece begins and goes on."""

    prefix: str
    """Of its ids."""
    open: Callable[[int, str, Origin], tuple[Item, list[Step]]]
    add: Callable[[Item, str], Step]


SAYINGS = {
    "message": Saying("msg_", open_message, text_delta),
    "refusal": Saying("msg_", open_refusal, refusal_delta),
    "reasoning": Saying("rs_", open_reasoning, reasoning_delta),
}


def kind_of(item: Item) -> str:
    """Its type, or that it is a refusal."""
    content: list[dict[str, Any]] = item.data.get("content") or []
    return "refusal" if content and content[0].get("type") == "refusal" else item.type


def text_of(message: Item) -> str:
    """All that a message says, as far as it has come."""
    content: list[dict[str, Any]] = message.data["content"]
    return content[0]["text"] if content and not message.open else "".join(message.pieces)


# -- tools that the server runs ----------------------------------------------------------------------------------------


def open_mcp_call(index: int, item_id: str, origin: Origin, name: str, arguments: str) -> tuple[Item, list[Step]]:
    """A call that is already being answered. Its arguments are written whole: half of them could be taken for all."""
    item = Item(
        index,
        {
            "id": item_id,
            "type": "mcp_call",
            "server_label": SERVER_LABEL,
            "name": name,
            "arguments": "",
            "status": "in_progress",
            "output": None,
            "error": None,
            "approval_request_id": None,
        },
        origin=origin,
    )
    steps = [item.added(), ("response.mcp_call.in_progress", item.at())]
    item.data["arguments"] = arguments
    steps.append(("response.mcp_call_arguments.delta", item.at(delta=arguments)))
    steps.append(("response.mcp_call_arguments.done", item.at(arguments=arguments)))
    return item, steps


def answer_mcp_call(item: Item, output: str, error: str | None) -> list[Step]:
    if error is None:
        return [("response.mcp_call.completed", item.at()), item.done("completed", output=output)]
    failure = {"type": "mcp_tool_execution_error", "content": [{"type": "text", "text": error}]}
    return [("response.mcp_call.failed", item.at()), item.done("failed", error=failure)]


def _close_call(item: Item, status: Closing) -> Iterator[Step]:
    if f"response.{item.type}_arguments.delta" in item.told:  # a worker may have died before it said that this was all
        named = {"name": item.data["name"]} if item.type == "function_call" else {}
        yield f"response.{item.type}_arguments.done", item.at(arguments=item.data["arguments"], **named)
    yield item.done(status)


def function_call(
    index: int, item_id: str, origin: Origin, call_id: str, name: str, arguments: str
) -> tuple[Item, list[Step]]:
    """A call, whole."""
    data = {
        "id": item_id,
        "type": "function_call",
        "call_id": call_id,
        "name": name,
        "arguments": "",
        "status": "in_progress",
    }
    item = Item(index, data, origin=origin)
    steps = [item.added(), ("response.function_call_arguments.delta", item.at(delta=arguments))]
    steps.append(("response.function_call_arguments.done", item.at(arguments=arguments, name=name)))
    steps.append(item.done("completed", arguments=arguments))
    return item, steps


def function_call_output(
    index: int, item_id: str, origin: Origin, call_id: str, output: str
) -> tuple[Item, list[Step]]:
    data = {
        "id": item_id,
        "type": "function_call_output",
        "call_id": call_id,
        "output": output,
        "status": "completed",
    }
    item = Item(index, data, origin=origin)
    return item, [item.added(), item.done()]


def approval_request(index: int, item_id: str, name: str, arguments: str) -> tuple[Item, list[Step]]:
    data = {
        "id": item_id,
        "type": "mcp_approval_request",
        "server_label": SERVER_LABEL,
        "name": name,
        "arguments": arguments,
    }
    item = Item(index, data)
    return item, [item.added(), item.done()]
