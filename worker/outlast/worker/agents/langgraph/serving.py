"""A graph with what is to be known to serve it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from outlast.shared.domain.graph_requests import Taken
from outlast.shared.settings import GraphOptions

from .context import ContextSchema
from .memory import with_store
from .shape import Shape, shape_of


@dataclass(frozen=True, slots=True)
class Serving:
    """One graph, shared by its runs."""

    graph: Any
    shape: Shape
    context: ContextSchema
    recursion_limit: int | None
    taken: Taken

    @classmethod
    def of(cls, found: Any, options: GraphOptions) -> Serving:
        """Takes a compiled graph or a builder. Raises SettingsError when it cannot be served as it is set."""
        graph = found.compile() if hasattr(found, "compile") else found
        context = ContextSchema(getattr(graph, "context_schema", None), options)
        return cls(with_store(graph), shape_of(graph, options), context, options.recursion_limit, options.taken)

    def __str__(self) -> str:
        fields = ", ".join(self.context.fields)
        return f"{self.shape}" + (f"; context: {fields}" if fields else "")
