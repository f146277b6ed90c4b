"""What a graph has for an answer when it has ended, where that is not what its messages have said."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any, cast

from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, convert_to_messages
from langgraph.checkpoint.base import CheckpointTuple

from outlast.agent import Close, Reasoning, Text
from outlast.shared.output.items import Item
from outlast.shared.wire import to_json

from . import speech
from .shape import Shape


class Said:
    """The texts of a run's messages so far: what a graph returns has often been said by its model."""

    def __init__(self, items: Sequence[Item]) -> None:
        """``items`` are those that earlier attempts have left."""
        self._pieces: dict[str, list[str]] = {
            item.origin.key or item.id: [_text_of(item)] for item in items if item.type == "message"
        }

    def hear(self, emission: object) -> None:
        if isinstance(emission, Text):
            self._pieces.setdefault(emission.key or "", []).append(emission.delta)

    def forget(self, key: str) -> None:
        self._pieces.pop(key, None)

    def holds(self, text: str) -> bool:
        return text.strip() in {"".join(pieces).strip() for pieces in self._pieces.values()}

    def has_key(self, key: str) -> bool:
        return key in self._pieces


def answer(
    shape: Shape, snapshot: Any, earlier: CheckpointTuple | None, said: Said, key: str
) -> Iterator[Text | Reasoning | Close]:
    """Yield what is still to be said of a graph's answer, from its state at the end.

    ``earlier`` is the checkpoint that this attempt went on from: the messages in it are not new.
    """
    if snapshot.next:  # it waits for somebody: what is there is of an earlier run
        return
    if earlier is not None and earlier.checkpoint["id"] == snapshot.config["configurable"]["checkpoint_id"]:
        earlier = None  # it had come to its end in an earlier attempt
    kept = shape.remembered({}, earlier)
    yield from unsaid(shape.answer(snapshot.values), said, kept, key)


def unsaid(value: Any, said: Said, kept: Sequence[BaseMessage], key: str) -> Iterator[Text | Reasoning | Close]:
    """Yield what of a graph's result is still to be said, a text under ``key``.

    A text is said as it is, and anything else as JSON; but of messages those that the model or the graph has made
    since the last question and that the thread had not ``kept`` before.
    """
    messages = _messages(value)
    if messages is not None:
        yield from _unsaid_messages(messages, said, {message.id for message in kept})
        return
    text = "" if value is None else value if isinstance(value, str) else to_json(speech.as_json(value))
    if text and not said.holds(text):
        yield Text(text, key)
        yield Close(key)


def _unsaid_messages(
    messages: Sequence[BaseMessage], said: Said, known: Collection[str | None]
) -> Iterator[Text | Reasoning | Close]:
    for message in _since_the_question(messages):
        own = speech.id_of(message)
        if isinstance(message, AIMessage) and not (own in known or said.has_key(own) or said.holds(message.text)):
            yield from speech.pieces(message, own)
            yield Close(own)


def _since_the_question(messages: Sequence[BaseMessage]) -> Sequence[BaseMessage]:
    asked = [place for place, message in enumerate(messages) if isinstance(message, HumanMessage)]
    return messages[asked[-1] + 1 :] if asked else messages


def _messages(value: Any) -> list[BaseMessage] | None:
    """Return the messages that a result consists of; None when it is something else."""
    if isinstance(value, BaseMessage):
        return [value]
    state: Mapping[str, Any] = cast("Mapping[str, Any]", value) if isinstance(value, Mapping) else {}
    in_state = "messages" in state
    inner: object = state["messages"] if in_state else cast("object", value)
    if not isinstance(inner, list) or not (inner or in_state):
        return None
    several = cast("list[Any]", inner)
    return convert_to_messages(several) if all(map(_is_message, several)) else None


def _is_message(value: Any) -> bool:
    return isinstance(value, BaseMessage) or (isinstance(value, dict) and "role" in value and "content" in value)


def _text_of(item: Item) -> str:
    parts: Sequence[Mapping[str, Any]] = item.data.get("content") or ()
    return "".join(part.get("text") or "" for part in parts)
