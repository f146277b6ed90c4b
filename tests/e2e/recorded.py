"""A graph whose second step never ends in a run's first attempt."""

from __future__ import annotations

import asyncio
from typing import Any

from langchain_core.messages import AIMessage
from langchain_core.runnables import RunnableConfig
from langgraph.graph import START, StateGraph

from tests.support.graphs import Conversation, RuleModel

_model = RuleModel(answer=lambda messages, options: AIMessage("noted"))


async def ask(state: Conversation) -> dict[str, Any]:
    return {"messages": [await _model.ainvoke(state["messages"])]}


async def wait(state: Conversation, config: RunnableConfig) -> dict[str, Any]:
    if config.get("configurable", {})["outlast_context"].attempt == 1:
        await asyncio.Event().wait()
    return {}


graph = StateGraph(Conversation).add_sequence([("ask", ask), ("wait", wait), ("ask_again", ask)]).add_edge(START, "ask")
