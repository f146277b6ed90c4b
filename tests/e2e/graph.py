"""A graph with everything that resuming must get right: branches, a graph within it, a tool, code in a thread.

Its last node says what the state holds, so that an answer shows whether a message was lost or doubled.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from typing import Any

from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.outputs import ChatGenerationChunk
from langchain_core.tools import tool
from langgraph.graph import START, StateGraph
from langgraph.prebuilt import ToolNode

from tests.support.graphs import Conversation, RuleModel, call

PACE_SECONDS = 0.02


class Unsteady(RuleModel):
    """Takes its time for every word."""

    async def _astream(self, messages: Any, stop: Any = None, run_manager: Any = None, **options: Any):
        async for chunk in super()._astream(messages, stop, None, **options):
            await asyncio.sleep(random.random() * PACE_SECONDS)
            if run_manager:
                await run_manager.on_llm_new_token(chunk.text, chunk=chunk)
            yield ChatGenerationChunk(message=chunk.message)


def saying(name: str, *, then: dict[str, Any] | None = None) -> Any:
    words = " ".join(f"{name}-{number}" for number in range(6))

    def answer(messages: Sequence[BaseMessage], options: dict[str, Any]) -> AIMessage:
        return AIMessage(words, tool_calls=[then] if then else [])

    model = Unsteady(answer=answer)

    async def node(state: Conversation) -> dict[str, Any]:
        return {"messages": [await model.ainvoke(state["messages"])]}

    return node


@tool
async def look_up(word: str) -> str:
    """Look a word up."""
    await asyncio.sleep(PACE_SECONDS)
    return f"{word} is a word"


class Noting(Conversation):
    custom_outputs: dict[str, Any]


def in_a_thread(state: Conversation) -> dict[str, Any]:
    model = RuleModel(answer=lambda _m, _o: AIMessage("from a thread"))
    return {"messages": [model.invoke(state["messages"])], "custom_outputs": {"thread": "ran"}}


async def report(state: Conversation) -> dict[str, Any]:
    said = sorted(f"{message.type}:{message.text[:6]}" for message in state["messages"])
    return {"messages": [AIMessage(f"The state holds {' '.join(said)}")], "custom_outputs": {"report": "ran"}}


inner = StateGraph(Conversation).add_node("first", saying("first")).add_node("second", saying("second"))
inner.add_edge(START, "first").add_edge("first", "second")

graph = StateGraph(Noting)
graph.add_node("plan", saying("plan"))
graph.add_node("left", saying("left"))
graph.add_node("inside", inner.compile())
graph.add_node("thread", in_a_thread)
graph.add_node("asking", saying("asking", then=call("look_up", "call_1", word="lease")))
graph.add_node("tools", ToolNode([look_up]))
graph.add_node("report", report)
graph.add_edge(START, "plan")
for branch in ("left", "inside", "thread"):
    graph.add_edge("plan", branch)
graph.add_edge(["left", "inside", "thread"], "asking")
graph.add_edge("asking", "tools").add_edge("tools", "report")

STATE = "ai:asking ai:first- ai:from a ai:left-0 ai:plan-0 ai:second human:go tool:lease "
ANSWERS = sorted(
    [" ".join(f"{name}-{number}" for number in range(6)) for name in ("plan", "left", "first", "second", "asking")]
    + ["from a thread", f"The state holds {STATE}", "look_up: lease is a word"]
)
"""What an uninterrupted run answers, item by item."""
