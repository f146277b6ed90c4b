"""Graphs within a graph that keep no checkpoints (``checkpointer=False``), under durability ``sync``.

LangGraph hands the durability of a run on to the graphs within it, and then waits for a checkpoint that such a graph
never writes: AttributeError. Plain LangGraph shows it as well when it is called with that durability.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, cast

from langgraph.pregel._loop import PregelLoop  # pyright: ignore[reportMissingTypeStubs] — it is private


class _NothingToStore:
    """A checkpoint that is not to be waited for, in synchronous code and in asynchronous."""

    def result(self) -> None:
        return None

    def __await__(self) -> Iterator[Any]:
        return iter(())


def apply() -> None:
    """Have a loop without checkpoints wait for none. A loop's own checkpoints replace it."""
    cast("Any", PregelLoop)._put_checkpoint_fut = _NothingToStore()


apply()
