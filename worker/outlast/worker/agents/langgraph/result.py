"""What a graph has for an answer when it has ended, where that is not what its messages have said. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

from langchain_core.messages import BaseMessage, HumanMessage, convert_to_messages

from outlast.shared.wire import to_json

from . import speech


def answer_in(value: Any) -> str | list[BaseMessage]:
    """Return a graph's result as a text, or as the messages that it consists of.

    A text stays as it is, and anything else becomes JSON; of messages those count that come after the last question.
    """
    messages = _messages(value)
    if messages is not None:
        return _since_the_question(messages)
    if value is None or isinstance(value, str):
        return value or ""
    return to_json(speech.as_json(value))


def _since_the_question(messages: Sequence[BaseMessage]) -> list[BaseMessage]:
    asked = [place for place, message in enumerate(messages) if isinstance(message, HumanMessage)]
    return list(messages[asked[-1] + 1 :] if asked else messages)


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
