"""The product with one of its promises broken, to see whether the checker notices: preloaded for its children."""

from __future__ import annotations

import os

from outlast.shared.store import events
from outlast.worker.agents.langgraph.agent import Performance

VARIABLE = "CHAOS_SABOTAGE"
MODULES = "outlast.worker.agents.langgraph,tests.chaos.sabotage"


def append_without_fence() -> None:
    """An attempt that has been replaced may still write, if its numbers follow."""
    fenced = events._APPEND
    events._APPEND = fenced.replace("AND h.attempt = b.attempt", "").replace("AND h.attempt = l.attempt", "")
    assert events._APPEND.count("attempt") == fenced.count("attempt") - 4, "the statement is not what it was"


def steps_without_flush() -> None:
    """A step's result is stored, although what it has said is not."""
    assert hasattr(Performance, "flush"), "what the callbacks call at a node's end is not what it was"

    async def nothing(_self: Performance) -> None:
        return

    Performance.flush = nothing  # type: ignore[method-assign]


if chosen := os.environ.get(VARIABLE):
    {"append_without_fence": append_without_fence, "steps_without_flush": steps_without_flush}[chosen]()
