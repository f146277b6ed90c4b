"""The store of graphs that bring none: in the memory of one process, so that it is forgotten with it."""

from __future__ import annotations

import functools
from collections.abc import Iterable
from typing import Any

import structlog
from langgraph.store.base import Op, PutOp, Result
from langgraph.store.memory import InMemoryStore

log = structlog.get_logger()


class ForgetfulStore(InMemoryStore):
    """LangGraph's store in memory, which says once that what is put there does not last."""

    _told = False

    def batch(self, ops: Iterable[Op]) -> list[Result]:
        return super().batch(self._noted(ops))

    async def abatch(self, ops: Iterable[Op]) -> list[Result]:
        return await super().abatch(self._noted(ops))

    def _noted(self, ops: Iterable[Op]) -> list[Op]:
        noted = list(ops)
        if not self._told and any(isinstance(op, PutOp) for op in noted):
            self._told = True
            log.warning("agent.store_in_memory", reason="the graph has no store: this one ends with its process")
        return noted


@functools.cache
def store_of_process() -> ForgetfulStore:
    """Return the one store that the graphs of this process share, as under LangGraph's own server."""
    return ForgetfulStore()


def with_store(graph: Any) -> Any:
    """Return the graph with a store: its own, or else that of this process."""
    return graph if graph.store is not None else graph.copy(update={"store": store_of_process()})
