"""How graphs are served: what an operator says of an agent whose graph does not say it itself."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, Field
from pydantic_settings import NoDecode

from outlast.shared.by_agent import ByAgent
from outlast.shared.domain.graph_requests import Taken

_ALL = "*"


@dataclass(frozen=True, slots=True)
class GraphOptions:
    """What is set for the graph of one agent."""

    agent: str = "agent"
    input: str | None = None
    """The field that takes the question."""
    output: str | None = None
    """The field that holds the answer."""
    context: Mapping[str, Any] = field(default_factory=dict[str, Any])
    """Values for its context."""
    shared_context: Mapping[str, Any] = field(default_factory=dict[str, Any])
    """The same for all agents: for those whose context has such fields."""
    recursion_limit: int | None = None
    """Steps of one run; None: the graph's own limit, or LangGraph's."""
    taken: Taken = field(default_factory=Taken)
    """What requests may ask of it beyond functions."""


def _parsed(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except ValueError:
        raise ValueError('write JSON, as in {"agent": {"field": "value"}}') from None


def _parsed_tools(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    tools: dict[str, list[str]] = {}
    for entry in filter(None, map(str.strip, value.split(","))):
        agent, _, tool = entry.rpartition("=")
        tools.setdefault(agent.strip() or _ALL, []).append(tool.strip())
    return tools


class GraphSettings(BaseModel):
    """The settings of graphs, by agent."""

    graph_input: ByAgent[str] = Field(default_factory=dict[str, str])
    """Which field of a graph without messages takes the question."""
    graph_output: ByAgent[str] = Field(default_factory=dict[str, str])
    """Which field of a graph holds the answer when it ends."""
    graph_context: Annotated[dict[str, dict[str, Any]], NoDecode, BeforeValidator(_parsed)] = Field(
        default_factory=dict[str, dict[str, Any]]
    )
    """Values of the graphs' contexts, where a request gives none."""
    recursion_limit: ByAgent[Annotated[int, Field(gt=0)]] = Field(default_factory=dict[str, int])
    """Steps of a graph in one run."""
    graph_tools: Annotated[dict[str, tuple[str, ...]], NoDecode, BeforeValidator(_parsed_tools)] = Field(
        default_factory=dict[str, tuple[str, ...]]
    )
    """Types of tools that a graph's models are given as they are: their provider runs them."""
    strict_parameters: bool = False
    """Parameters that reach no model of a graph are refused."""

    def taken(self, agent: str) -> Taken:
        """Return what requests may ask of an agent's graph beyond functions."""
        tools = {*self.graph_tools.get(_ALL, ()), *self.graph_tools.get(agent, ())}
        return Taken(frozenset(tools), self.strict_parameters)

    def graph_options(self, agent: str) -> GraphOptions:
        """Return what is set for the graph of this agent."""
        return GraphOptions(
            agent=agent,
            input=self.graph_input.get(agent, self.graph_input.get(_ALL)),
            output=self.graph_output.get(agent, self.graph_output.get(_ALL)),
            context=self.graph_context.get(agent, {}),
            shared_context=self.graph_context.get(_ALL, {}),
            recursion_limit=self.recursion_limit.get(agent, self.recursion_limit.get(_ALL)),
            taken=self.taken(agent),
        )
