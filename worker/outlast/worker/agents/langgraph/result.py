"""What a graph has for an answer when it has ended, where that is not what its messages have said."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, cast

from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, convert_to_messages

from outlast.agent import Close, Reasoning, Text
from outlast.shared.output.items import Item
from outlast.shared.wire import to_json

from . import speech


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


def answer(value: Any, said: Said, kept: Sequence[BaseMessage], key: str) -> Iterator[Text | Reasoning | Close]:
    """Yield what of a graph's result is still to be said, a text under ``key``.

    A text is said as it is, and anything else as JSON; but of messages those that the model or the graph has made
    since the last question and that the thread had not ``kept`` before.
    """
    messages = _messages(value)
    if messages is None:
        text = "" if value is None else value if isinstance(value, str) else to_json(speech.as_json(value))
        if text and not said.holds(text):
            yield Text(text, key)
            yield Close(key)
        return
    known = {message.id for message in kept}
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
    in_state = isinstance(value, Mapping) and "messages" in value
    inner: Any = cast("Mapping[str, Any]", value)["messages"] if in_state else value
    if not isinstance(inner, list) or not (inner or in_state):
        return None
    several = cast("list[Any]", inner)
    return convert_to_messages(several) if all(map(_is_message, several)) else None


def _is_message(value: Any) -> bool:
    return isinstance(value, BaseMessage) or (isinstance(value, dict) and "role" in value and "content" in value)


def _text_of(item: Item) -> str:
    parts: Sequence[Mapping[str, Any]] = item.data.get("content") or ()
    return "".join(part.get("text") or "" for part in parts)
