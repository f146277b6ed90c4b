"""No node of a graph ends before what it has said is stored."""

from __future__ import annotations

import asyncio
import gc
from typing import Any

import pytest
from langchain_core.messages import AIMessage, HumanMessage
from langgraph.graph import START, MessagesState, StateGraph

from outlast.shared.domain.errors import LeaseLost
from outlast.worker.agents.langgraph.callbacks import Callbacks
from tests.support.listeners import Noted


@pytest.mark.parametrize("pace_is_first", [False, True])
@pytest.mark.parametrize("is_sync", [False, True])
async def test_the_next_node_begins_when_the_words_are_stored(pace_is_first: bool, is_sync: bool) -> None:
    """Also in a graph within the graph, for which LangChain puts its handlers into any order."""
    heard: list[Any] = []

    def node(name: str) -> Any:
        def work(state: MessagesState) -> Any:
            heard.append(f"{name} begins")
            return {"messages": [AIMessage(name)]}

        async def work_on_the_loop(state: MessagesState) -> Any:
            return work(state)

        return work if is_sync else work_on_the_loop

    def chain(**nodes: Any) -> Any:
        graph: Any = StateGraph(MessagesState)
        for before, name in zip([START, *nodes], nodes, strict=False):
            graph.add_node(name, nodes[name]).add_edge(before, name)
        return graph.compile()

    inner = chain(first=node("first"), second=node("second"))
    callbacks = Callbacks(Noted(heard))
    handlers: list[Any] = [callbacks, callbacks.pace]
    await chain(before=node("before"), inside=inner, after=node("after")).ainvoke(
        {"messages": [HumanMessage("x")]}, {"callbacks": handlers[::-1] if pace_is_first else handlers}
    )

    for earlier, later in [("before", "first"), ("first", "second"), ("second", "after")]:
        between = heard[heard.index(f"{earlier} begins") : heard.index(f"{later} begins")]
        assert between[-1] == "flushed"


async def test_the_loop_does_not_complain_of_a_lease_that_is_lost_while_a_cancelled_graph_stores_its_words() -> None:
    complaints: list[Any] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, complaint: complaints.append(complaint))
    storing, lost = asyncio.Event(), asyncio.Event()

    class Losing(Noted):
        async def flush(self) -> None:
            storing.set()
            await lost.wait()
            raise LeaseLost

    async def node(state: MessagesState) -> Any:
        return {"messages": [AIMessage("word")]}

    graph: Any = StateGraph(MessagesState)
    graph.add_node("node", node).add_edge(START, "node")
    callbacks = Callbacks(Losing([]))
    running = asyncio.create_task(
        graph.compile().ainvoke({"messages": [HumanMessage("x")]}, {"callbacks": [callbacks, callbacks.pace]})
    )
    await storing.wait()
    running.cancel()
    await asyncio.wait({running})
    shielded = asyncio.all_tasks() - {asyncio.current_task()}
    assert shielded
    lost.set()
    await asyncio.wait(shielded)  # which does not ask how they ended
    shielded.clear()
    del running  # whose traceback holds on to them
    gc.collect()
    assert complaints == []
