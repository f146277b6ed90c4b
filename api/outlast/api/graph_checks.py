"""Requests that a graph cannot fulfil, refused where the API knows that the agent is one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from outlast.shared.connections import Database
from outlast.shared.domain.graph_requests import Taken, problem_with
from outlast.shared.domain.runs import AgentKind
from outlast.shared.store import workers


async def check_for_graph(database: Database, body: Mapping[str, Any], agent: str, taken: Taken) -> None:
    """Raise Invalid for what no graph can do. While no worker has said what the agent is, the run fails instead."""
    problem = problem_with(body, taken)
    if problem is not None and await database.run(lambda c: workers.kind_of(c, agent)) is AgentKind.GRAPH:
        raise problem
