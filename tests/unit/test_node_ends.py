"""No node of a graph ends before what it has said is stored."""

from __future__ import annotations

from typing import Any

import pytest
from langchain_core.messages import AIMessage, HumanMessage
from langgraph.graph import START, MessagesState, StateGraph

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
