"""A graph's structured response: its JSON is the answer, and the call that makes it is no call of a tool.

`create_agent` has two ways to a ``structured_response``. With a ProviderStrategy the model's message is its JSON. With
a ToolStrategy the schema is bound as a tool, and the model's call of it is the response: LangChain answers it itself.
`create_react_agent` asks a model once more, whose words are not shown.
"""

from __future__ import annotations

import hashlib
import inspect
import json
from collections.abc import Iterable
from types import FrameType
from typing import Any, cast

from langchain_core.messages import AIMessage

from outlast.shared.wire import to_json

from . import speech

KEY = "structured-"
"""The beginning of the keys under which responses are told."""
_FACTORY, _STRATEGY = "langchain.agents.factory", "ToolStrategy"


def artificial_tools() -> frozenset[str]:
    """The schemas that are bound as tools to the model call which is being made here, by name.

    Nothing that reaches the model tells such a tool from a real one. The frame of LangChain's agent that makes the
    call holds the strategy; where there is none, or another version has it elsewhere, the call is shown as a tool's.
    """
    frame: FrameType | None = inspect.currentframe()
    while frame is not None:
        if frame.f_globals.get("__name__") == _FACTORY:
            values: list[Any] = list(frame.f_locals.values())
            for strategy in (value for value in values if type(value).__name__ == _STRATEGY):
                return frozenset(str(spec.name) for spec in strategy.schema_specs)
        frame = frame.f_back
    return frozenset()


def answer_in(result: Any, heard: Iterable[str] = ()) -> tuple[str, str] | None:
    """The JSON of the structured response in a node's result, and a key to say it under.

    None when there is none, or when a message has said it: the result's own, or one of the texts that were ``heard``.
    """
    response = speech.values_in(result).get("structured_response")
    if response is None:
        return None
    last = next((m for m in reversed(list(speech.messages_in(result))) if isinstance(m, AIMessage)), None)
    if last is not None and not last.tool_calls and _json(last.text) is not _NO_JSON:
        return None
    if any(_json(text) == response for text in heard):
        return None
    text = to_json(response)
    return text, f"{KEY}{hashlib.sha256(text.encode()).hexdigest()[:16]}"


def is_made_by(arguments: Any, response: str) -> bool:
    """Tell whether a call with these arguments makes this response, which may have defaults beside them."""
    made = _json(response)
    if not isinstance(made, dict) or not isinstance(arguments, dict) or not arguments:
        return False
    fields = cast("dict[str, Any]", made)
    return all(fields.get(name, _NO_JSON) == value for name, value in cast("dict[str, Any]", arguments).items())


_NO_JSON = object()


def _json(text: str) -> object:
    if text.lstrip()[:1] not in ("{", "["):
        return _NO_JSON
    try:
        return json.loads(text)
    except ValueError:
        return _NO_JSON
