"""Calls of models and tools that are under way in a graph."""

from __future__ import annotations

from dataclasses import dataclass

from outlast.shared.output.items import Path

from .told import Call, Told


@dataclass(slots=True)
class Model:
    """A call of a model that is under way."""

    path: Path
    told: Told | None = None
    """Its message; None before the first piece."""


@dataclass(slots=True)
class Tool:
    """A tool that is under way."""

    path: Path
    position: str
    call: Call | None = None
