"""Graphs within graphs that are called by invoke(), from an async node on the event loop and from threads."""

from __future__ import annotations

import asyncio
import operator
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Annotated, Any, TypedDict

import pytest
from langchain_core.messages import AIMessage
from langgraph.graph import START, StateGraph

from outlast.shared.connections import Database, fixed
from outlast.shared.domain.errors import Unavailable
from outlast.shared.domain.ids import new_uuid
from outlast.shared.domain.runs import Lease
from outlast.shared.settings import Settings
from outlast.worker.agents.langgraph.saver import FencedSaver
from tests.support.graphs import Conversation
from tests.support.log import check_log, stored_lines
from tests.support.processes import free_port
from tests.support.runs import take_first_attempts_over
from tests.support.service import serving


class Count(TypedDict):
    steps: Annotated[list[str], operator.add]


class Inner:
    """A graph of two steps whose second one may do something in the middle of the run."""

    def __init__(self, checkpointer: bool | None = None) -> None:
        self.begun: list[str] = []
        self.meanwhile: Any = lambda: None
        graph = StateGraph(Count).add_node("one", self.one).add_node("two", self.two)
        self.graph = graph.add_edge(START, "one").add_edge("one", "two").compile(checkpointer=checkpointer)

    def one(self, state: Count) -> Any:
        self.begun.append("one")
        return {"steps": ["one"]}

    def two(self, state: Count) -> Any:
        self.begun.append("two")
        self.meanwhile()
        return {"steps": ["two"]}

    def invoke(self) -> Any:
        steps = self.graph.invoke({"steps": []})["steps"]
        return {"messages": [AIMessage(" ".join(steps))]}


def around(inner: Inner, where: str) -> Any:
    async def on_loop(state: Conversation) -> Any:
        return inner.invoke()

    def in_thread(state: Conversation) -> Any:
        return inner.invoke()

    node = on_loop if where == "loop" else in_thread
    return StateGraph(Conversation).add_node("node", node).add_edge(START, "node")


WHERE = pytest.mark.parametrize("where", ["loop", "thread"])


@WHERE
@pytest.mark.parametrize("checkpointer", [None, True])
async def test_a_graph_called_by_invoke_keeps_its_state(settings: Settings, where: str, checkpointer: Any) -> None:
    inner = Inner(checkpointer)
    async with serving(settings, {"graph": around(inner, where)}) as service:
        said = [
            (await service.openai.responses.create(input="hi", conversation="c")).output_text  # type: ignore[call-overload]
            for _ in range(2)
        ]
    assert said == ["one two", "one two one two" if checkpointer else "one two"]


@WHERE
@pytest.mark.parametrize("checkpointer", [None, True])
async def test_a_run_taken_over_within_invoke_goes_on_where_the_inner_graph_was(
    settings: Settings, database: Database, where: str, checkpointer: Any
) -> None:
    inner = Inner(checkpointer)

    def lose() -> None:
        inner.meanwhile = lambda: None
        with ThreadPoolExecutor(1) as thread:
            thread.submit(asyncio.run, take_first_attempts_over(database)).result()

    inner.meanwhile = lose
    async with serving(settings, {"graph": around(inner, where)}) as service:
        response = await service.openai.responses.create(input="hi")
        check_log(await stored_lines(database, response.id))

    assert (response.status, response.output_text) == ("completed", "one two")
    assert inner.begun == ["one", "two", "two"]


async def test_a_blocked_loop_does_not_wait_long_for_a_database_that_is_away() -> None:
    away = fixed(f"postgresql://nobody@127.0.0.1:{free_port()}/none")
    async with Database(away, schema="outlast", application="test").pooled(max_connections=1) as database:
        saver = FencedSaver(database, Lease(new_uuid(), 1))
        began = time.monotonic()
        with pytest.raises(Unavailable):
            saver.get_tuple({"configurable": {"thread_id": "t", "checkpoint_ns": ""}})
        assert time.monotonic() - began < 5
    with pytest.raises(Unavailable):
        saver.get_tuple({"configurable": {"thread_id": "t", "checkpoint_ns": ""}})


async def test_a_loop_that_turns_waits_until_the_database_is_back(database_url: str) -> None:
    asked: list[int] = []

    async def address() -> str:
        asked.append(1)
        return database_url if len(asked) > 4 else f"postgresql://nobody@127.0.0.1:{free_port()}/none"

    async with Database(address, schema="outlast", application="test").pooled(max_connections=1) as database:
        saver = FencedSaver(database, Lease(new_uuid(), 1))
        found = await asyncio.to_thread(saver.get_tuple, {"configurable": {"thread_id": "t", "checkpoint_ns": ""}})
        listed = await asyncio.to_thread(lambda: list(saver.list({"configurable": {"thread_id": "t"}})))
    assert (found, listed) == (None, [])
