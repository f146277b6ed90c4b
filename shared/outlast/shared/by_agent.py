"""Settings with one value for all agents, or one for each: ``3`` or ``3,slow=5``. What is for all is kept as ``*``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, TypeVar

from pydantic import BeforeValidator
from pydantic_settings import NoDecode

T = TypeVar("T")


def _parsed(value: Any) -> Any:
    if isinstance(value, int):
        return {"*": value}
    if not isinstance(value, str):
        return value
    pairs = [entry.rpartition("=") for entry in value.split(",") if entry.strip()]
    return {name.strip() or "*": given.strip() for name, _, given in pairs}


ByAgent = Annotated[dict[str, T], NoDecode, BeforeValidator(_parsed)]


def chosen(values: Mapping[str, T], agent: str, default: T) -> T:
    """The agent's own value, or that for all, or the default."""
    return values.get(agent, values.get("*", default))
