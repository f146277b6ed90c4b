"""A message and a tool call, as the client was told of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from langchain_core.messages import BaseMessage

from outlast.shared.output.items import Item, Path, kind_of, text_of


@dataclass(slots=True, eq=False)
class Call:
    """A tool call. Its identity is its place: the message that makes it, and the how manieth it is of that message."""

    key: str
    path: Path
    name: str
    arguments: Mapping[str, Any] | str
    call_id: str
    """The model's own label. It may be empty, or come again."""
    wire_id: str | None = None
    """What a client that has to answer it knows it by; None for a tool that the graph runs."""
    begun_in: str | None = None
    """The task that carries it out."""
    result: tuple[str, str] | None = None
    """Status and output that were told."""
    unmade: bool = False
    """No message made it, so far: code of the graph's has called the tool by itself."""
    artificial: bool = False
    """There is no such tool: the call is a structured response, and not told."""
    answers: set[str] = field(default_factory=set[str])
    """Ids of the messages that hold it."""
    in_state: bool = False

    def made(self, call: Mapping[str, Any]) -> bool:
        """Whether it is this call of a message."""
        return (call["name"], call["args"], call["id"] or "") == (self.name, self.arguments, self.call_id)


@dataclass(slots=True, eq=False)
class Told:
    """A message of a model, as the client has it."""

    key: str
    path: Path
    pieces: list[str] = field(default_factory=list[str])
    calls: list[Call] = field(default_factory=list[Call])
    in_state: bool = False

    @property
    def text(self) -> str:
        return "".join(self.pieces)

    @property
    def task(self) -> str:
        return task_of(self.path)


def are_the_same(told: Sequence[Call], made: Sequence[Mapping[str, Any]]) -> bool:
    return len(told) == len(made) and all(call.made(its) for call, its in zip(told, made, strict=True))


def task_of(path: Path) -> str:
    return path[-1]["task"] if path else ""


def text_of_item(item: Item) -> str:
    """The text of a message, without a refusal."""
    return text_of(item) if kind_of(item) == "message" else ""


def content_of(message: BaseMessage) -> tuple[str, str]:
    return message.type, message.text


def is_older(message: BaseMessage, texts: Counter[tuple[str, str]]) -> bool:
    """Whether it is one of the messages without an id that were there before."""
    if message.id is not None or not texts[content_of(message)]:
        return False
    texts[content_of(message)] -= 1
    return True
