"""What of an interrupted run survives: which of its items come from steps that will not be run again. Pure."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from outlast.shared.output.items import Item, Path

NODE_END, GRAPH_END = ":", "|"  # what LangGraph writes its namespaces with: node:task|node:task


@dataclass(frozen=True, slots=True)
class Reached:
    """How far one graph of the run had come, by its latest checkpoint."""

    step: int
    finished: frozenset[str] = field(default_factory=frozenset[str])
    """Tasks of the step after it whose results are stored."""


Look = Callable[[str], Awaitable[Reached | None]]
"""Tells how far the graph in a namespace had come; None when it has no checkpoint. The whole graph's is empty."""


def path_of(metadata: Mapping[str, Any], steps: Mapping[str, int]) -> Path:
    """Where a callback comes from: each graph's node, task and step, outermost first.

    ``steps`` are those of the tasks seen so far: the metadata of an inner graph tell no more than its own.
    """
    path: list[dict[str, Any]] = []
    for segment in str(metadata["langgraph_checkpoint_ns"]).split(GRAPH_END):
        node, found, task = segment.rpartition(NODE_END)
        if found:
            path.append({"node": node, "task": task, "step": steps.get(task)})
        elif path:  # a node's second graph, and its later ones, are counted
            path[-1]["call"] = segment
    return path


async def surviving(items: Sequence[Item], look: Look) -> set[str]:
    """The ids of those items that a resumed run will not say again.

    What a finished step has left open is whole; but a tool's call is said again with its result, also when the end of
    the run had closed it, which was then withdrawn.
    """
    return {item.id for item in items if _may_survive(item) and await survives(item.origin.path, look)}


def _may_survive(item: Item) -> bool:
    unanswered = item.type == "mcp_call" and (item.open or item.data["status"] == "incomplete")
    return item.surviving and not unanswered


async def survives(path: Path, look: Look) -> bool:
    """A step survives when its graph has a later checkpoint, or its own result; or when the graph around it does."""
    namespace = ""
    for place in path:
        reached = await look(namespace)
        if reached is None:
            return False
        step = place["step"]
        if step is not None and step <= reached.step:
            return True
        if any(inner["task"] in reached.finished for inner in path):  # a task that another one calls is kept with it
            return True
        if step is not None and step > reached.step + 1:
            return False
        namespace += f"{GRAPH_END if namespace else ''}{place['node']}{NODE_END}{place['task']}"
        namespace += f"{GRAPH_END}{place['call']}" if "call" in place else ""
    return False
