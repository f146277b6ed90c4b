"""Values as far as LangGraph's serialiser can hold them. Pure; looked at only when it has refused one."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable
from typing import Any, cast

from langchain_core.messages import BaseMessage
from langgraph.types import Send
from pydantic import BaseModel

from outlast.shared.wire import clean

Change = Callable[[Any], Any]
Fits = Callable[[Any], bool]
"""Whether the serialiser takes it."""

_NEVER_SAID = ("artifact", "additional_kwargs", "response_metadata")
"""What of a message no model is given."""


def with_clean_keys(value: Any) -> Any:
    """A copy whose keys have no lone surrogates. The serialiser replaces those of values by itself."""
    if isinstance(value, dict):
        pairs = cast("dict[Any, Any]", value).items()
        return {clean(k) if isinstance(k, str) else k: with_clean_keys(v) for k, v in pairs}
    return _changed(value, with_clean_keys)


def without_asides(value: Any, fits: Fits, left_out: Change) -> Any:
    """A copy whose messages are without what does not fit and no model is given: artifacts of tools, most of all.

    ``left_out`` gives what is put in its place.
    """

    def mend(part: Any) -> Any:
        if not isinstance(part, BaseMessage):
            return _changed(part, mend)
        update = {name: _fitting(getattr(part, name), fits, left_out) for name in _NEVER_SAID if hasattr(part, name)}
        return part.model_copy(update=update)

    return mend(value)


def culprit(value: Any, fits: Fits) -> Any:
    """The innermost part that does not fit."""
    for part in _parts(value):
        if not fits(part):
            return culprit(part, fits)
    return value


def _fitting(value: Any, fits: Fits, left_out: Change) -> Any:
    if fits(value):
        return value
    if isinstance(value, dict):
        pairs = cast("dict[Any, Any]", value).items()
        return {key: part if fits(part) else left_out(part) for key, part in pairs}
    return left_out(value)


def _parts(value: Any) -> list[Any]:
    if isinstance(value, dict):
        return list(cast("dict[Any, Any]", value).values())
    if isinstance(value, (set, frozenset)):
        return list(cast("set[Any]", value))
    parts: list[Any] = []
    _changed(value, parts.append)
    return parts


def _changed(value: Any, change: Change) -> Any:
    """A copy with each of its parts changed, if it is something that has parts."""
    match value:
        case dict():
            return {key: change(part) for key, part in cast("dict[Any, Any]", value).items()}
        case list():
            return [change(part) for part in cast("list[Any]", value)]
        case tuple():
            parts = [change(part) for part in cast("tuple[Any, ...]", value)]
            make: Any = getattr(cast("Any", value), "_make", tuple)
            return make(parts)
        case BaseModel():
            return value.model_copy(update={name: change(part) for name, part in value})
        case Send():
            return Send(value.node, change(value.arg), timeout=value.timeout)
        case _ if dataclasses.is_dataclass(value) and not isinstance(value, type):
            copied = copy.copy(value)
            for field in dataclasses.fields(value):
                object.__setattr__(copied, field.name, change(getattr(value, field.name)))
            return copied
        case _:
            return value
