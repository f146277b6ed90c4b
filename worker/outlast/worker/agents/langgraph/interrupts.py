"""Graphs that wait for a person's decision: nothing can give one yet, so their runs fail and say where.

A resumed graph goes past the gates of ``interrupt_before`` and ``interrupt_after``, as LangGraph means it. An attempt
that resumes only because a worker was lost must not: it looks for gates itself.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Sequence
from typing import Any

from outlast.agent import AgentError

Place = tuple[str, str]
"""Where a graph waits: ``in``, ``before`` or ``after``, and the name of the node."""


async def at_gate(graph: Any, config: Any) -> AgentError | None:
    """The error for a graph that has come to a gate and would go past it, were it resumed."""
    graphs = [graph, *(inner for _, inner in graph.get_subgraphs(recurse=True))]
    if not any(_gates(one) for one in graphs):
        return None
    snapshot = await graph.aget_state(config, subgraphs=True)
    places = [place async for place in _at_gates(graph, graph, snapshot)]
    return _not_supported(places) if places else None


async def interrupted(graph: Any, config: Any) -> AgentError:
    """The error for a graph that has just been interrupted."""
    snapshot = await graph.aget_state(config, subgraphs=True)
    places = [*_interrupts(snapshot), *[place async for place in _at_gates(graph, graph, snapshot)]]
    return _not_supported(places or [("before", node) for node in snapshot.next])


def _not_supported(places: Sequence[Place]) -> AgentError:
    where = ", ".join(dict.fromkeys(f"{how} the node '{node}'" for how, node in places))
    return AgentError(
        f"The graph waits for a person's decision {where}, and Outlast cannot hand one on yet. Take interrupt(), "
        "interrupt_before, interrupt_after or the approval middleware out of the graph, or ask for what needs no "
        "decision: the conversation goes on with the next question.",
        code="interrupt_not_supported",
    )


def _interrupts(snapshot: Any) -> Iterator[Place]:
    """The innermost nodes that have called ``interrupt()``."""
    for task in snapshot.tasks:
        if task.interrupts:
            yield from list(_interrupts(task.state)) if hasattr(task.state, "tasks") else [("in", task.name)]


async def _at_gates(root: Any, graph: Any, snapshot: Any) -> AsyncIterator[Place]:
    for node in _among(graph.interrupt_before_nodes, snapshot.next):
        yield "before", node
    if graph.interrupt_after_nodes and snapshot.next and snapshot.parent_config:
        earlier = await root.aget_state(snapshot.parent_config)
        for node in _among(graph.interrupt_after_nodes, earlier.next):
            yield "after", node
    inner = dict(graph.get_subgraphs())
    for task in snapshot.tasks:
        if task.name in inner and hasattr(task.state, "tasks"):
            async for place in _at_gates(root, inner[task.name], task.state):
                yield place


def _gates(graph: Any) -> bool:
    return bool(getattr(graph, "interrupt_before_nodes", None) or getattr(graph, "interrupt_after_nodes", None))


def _among(gated: Sequence[str], nodes: Sequence[str]) -> Sequence[str]:
    """``gated`` may be ``*``: all of them."""
    return nodes if gated == "*" else [node for node in nodes if node in gated]
