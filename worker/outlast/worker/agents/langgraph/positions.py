"""Identities of tool calls, for idempotency keys: where in the run a call is made, and what it is."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping
from typing import Any

from pydantic_core import to_jsonable_python

from outlast.shared.output.items import Path


class Positions:
    """Those of one attempt. A later attempt gives the same call the same one; ids of checkpoints are not part of it."""

    def __init__(self) -> None:
        self._places: dict[str, tuple[Any, Any]] = {}
        self._made: dict[str, Counter[str]] = {}

    def begin_task(self, task: str, metadata: Mapping[str, Any]) -> None:
        """Note which step a task is of, and its place in it. A task that is tried again counts anew."""
        self._places[task] = (metadata["langgraph_step"], metadata.get("langgraph_path"))
        self._made[task] = Counter()

    def of(self, path: Path, name: str, arguments: Any) -> str:
        """The identity of a call that begins now. A task is repeated as a whole, so its equal calls can be counted."""
        places = [[place["node"], *self._places.get(place["task"], (place["step"], None))] for place in path]
        position = _digest([places, name, arguments])
        made = self._made.setdefault(path[-1]["task"] if path else "", Counter())
        made[position] += 1
        return f"{position}-{made[position]}"


def _digest(value: Any) -> str:
    plain = to_jsonable_python(value, fallback=lambda strange: type(strange).__name__, inf_nan_mode="strings")
    return hashlib.sha256(repr(plain).encode("utf-8", "replace")).hexdigest()[:32]
