"""A graph that does not come to an end."""

from __future__ import annotations

import re

from langgraph.errors import GraphRecursionError

from outlast.agent import AgentError


def limit_exceeded(error: GraphRecursionError) -> AgentError:
    """Return what the client learns: LangGraph's words name the limit of the very graph that has reached it."""
    limit = re.search(r"limit of (\d+)", str(error))
    within = f"within {limit[1]} steps" if limit else "within its limit of steps"
    return AgentError(
        f"The graph did not come to an end {within}. OUTLAST_RECURSION_LIMIT sets how many a run may take.",
        code="recursion_limit_exceeded",
    )
