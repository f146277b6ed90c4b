"""``langgraph.json``, where the projects of LangGraph's users name their graphs. Nothing is imported here."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, cast


def is_graph_file(target: str) -> bool:
    """Tell whether this names such a file rather than an agent."""
    return target.endswith(".json")


def read(file: str) -> dict[str, Any]:
    """Return what the file holds. Raises ValueError, which says what is wrong with it."""
    try:
        found: Any = json.loads(Path(file).read_text("utf-8"))
    except OSError as error:
        raise ValueError(f"{file}: {error.strerror}") from None
    except ValueError as error:
        raise ValueError(f"{file} is not JSON: {error}") from None
    graphs: Any = cast("dict[str, Any]", found).get("graphs") if isinstance(found, dict) else None
    if not graphs or not isinstance(graphs, dict):
        raise ValueError(f'{file} names no graphs: {{"graphs": {{"name": "./file.py:graph"}}}}')
    return cast("dict[str, Any]", found)


def agents_in(file: str) -> dict[str, str]:
    """Return its graphs as agents: name -> file:name."""
    return {name: f"{file}:{name}" for name in read(file)["graphs"]}


def target_of(file: str, name: str) -> str:
    """Return the target of one of its graphs: module:attribute, or path:attribute relative to the file's folder."""
    graph: Any = read(file)["graphs"].get(name)
    if isinstance(graph, dict):
        graph = cast("dict[str, Any]", graph).get("path")
    if not isinstance(graph, str) or not all(graph.rpartition(":")):
        raise ValueError(f"{file}: the graph {name} has no path, as in ./file.py:graph")
    return graph
