"""Graphs whose state Postgres or msgpack cannot hold: the run goes on, and what is missing is not missed silently."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage
from langchain_core.tools import tool
from langgraph.graph import START, StateGraph
from structlog.testing import capture_logs

from outlast.shared.connections import Database
from outlast.shared.domain.runs import Durability
from outlast.shared.settings import Settings
from tests.support.graphs import Conversation, RuleModel, call, calling, tool_results
from tests.support.log import check_log, stored_lines
from tests.support.runs import take_first_attempts_over
from tests.support.service import Service, serving
from tests.support.waiting import until


class Frame:
    def __init__(self, rows: int) -> None:
        self.rows = rows
        self.done = asyncio.Event()


class State(Conversation):
    frame: Any
    text: str


class Loading:
    """load -> rest -> answer. The last step waits until it may go on."""

    def __init__(self) -> None:
        self.begun: list[str] = []
        self.gate = asyncio.Event()

    async def load(self, state: State) -> Any:
        self.begun.append("load")
        if "again" in str(state["messages"][-1].content):
            return {}
        return {"frame": Frame(3), "text": "a\0b\ud83d"}

    async def answer(self, state: State) -> Any:
        self.begun.append("answer")
        await self.gate.wait()
        return {"messages": [AIMessage(f"{state['frame'].rows} rows of {state['text']!r}")]}

    @property
    def graph(self) -> Any:
        graph = StateGraph(State).add_node("load", self.load).add_node("answer", self.answer)
        return graph.add_edge(START, "load").add_edge("load", "answer")

    @property
    def within(self) -> Any:
        """The same as a graph within a node."""
        return StateGraph(State).add_node("inner", self.graph.compile()).add_edge(START, "inner")

    async def has_answered(self, times: int) -> None:
        async def answered() -> bool:
            return self.begun.count("answer") == times

        await until(answered)


async def ended(service: Service, run: str) -> Any:
    async def over() -> bool:
        return (await service.openai.responses.retrieve(run)).status not in ("queued", "in_progress")

    await until(over)
    return await service.openai.responses.retrieve(run)


async def submit(service: Service, **more: Any) -> str:
    return (await service.openai.responses.create(**{"input": "hi", "background": True} | more)).id


async def test_a_run_completes_with_a_value_that_cannot_be_stored(settings: Settings) -> None:
    loading = Loading()
    loading.gate.set()
    with capture_logs() as logs:
        async with serving(settings, {"graph": loading.graph}) as service:
            first = await service.openai.responses.create(input="hi", conversation="c")  # type: ignore[call-overload]
            again = await service.openai.responses.create(input="once more", conversation="c")  # type: ignore[call-overload]
            missed = await service.openai.responses.create(input="again", conversation="c")  # type: ignore[call-overload]

    assert (first.error, again.error) == (None, None)
    assert first.output_text == again.output_text == "3 rows of 'a\\x00b\\ud83d'"
    told = [entry for entry in logs if entry["event"] == "checkpoint.value_not_stored"]
    assert [(entry["channel"], entry["type"]) for entry in told] == [("frame", "Frame")] * 2
    assert missed.error is not None and (missed.status, missed.error.code) == ("failed", "state_not_stored")
    assert "channel 'frame' held a Frame" in missed.error.message and "UntrackedValue" in missed.error.message


@pytest.mark.parametrize("durability", [Durability.SYNC, Durability.ASYNC])
@pytest.mark.parametrize("where", ["graph", "within"])
async def test_what_was_not_stored_is_made_again_when_the_run_is_taken_over(
    settings: Settings, database: Database, where: str, durability: Durability
) -> None:
    loading = Loading()
    async with serving(settings, {"graph": getattr(loading, where)}) as service:
        run = await submit(service, extra_body={"durability": durability.value})
        await loading.has_answered(1)
        await take_first_attempts_over(database)
        await loading.has_answered(2)
        loading.gate.set()
        response = await ended(service, run)
        check_log(await stored_lines(database, run))

    assert (response.status, response.output_text) == ("completed", "3 rows of 'a\\x00b\\ud83d'")
    assert loading.begun == ["load", "answer"] * 2


async def test_a_run_goes_on_in_a_conversation_that_already_lacks_a_value(
    settings: Settings, database: Database
) -> None:
    """Of an earlier run nothing can be made again: its checkpoints stay."""
    loading = Loading()
    loading.gate.set()
    async with serving(settings, {"graph": loading.graph}) as service:
        await service.openai.responses.create(input="hi", conversation="c")  # type: ignore[call-overload]
        loading.gate.clear()
        run = await submit(service, input="once more", conversation="c")
        await loading.has_answered(2)
        await take_first_attempts_over(database)
        await loading.has_answered(3)
        loading.gate.set()
        response = await ended(service, run)

    assert response.output_text == "3 rows of 'a\\x00b\\ud83d'"
    assert loading.begun == ["load", "answer"] * 3


async def test_the_artifact_of_a_tool_is_left_out_and_the_tool_is_not_called_again(
    settings: Settings, database: Database
) -> None:
    called: list[str] = []
    gate, asked = asyncio.Event(), asyncio.Event()

    @tool(response_format="content_and_artifact")
    def query(sql: str) -> tuple[str, Any]:
        """Query."""
        called.append(sql)
        return "3 rows", Frame(3)

    def rule(messages: Sequence[BaseMessage], _options: Any) -> AIMessage:
        if not tool_results(messages):
            return AIMessage("", tool_calls=[call("query", "call_1", sql="s")])
        asked.set()
        return AIMessage("There are " + tool_results(messages)[0])

    graph = calling(RuleModel(answer=rule), query)

    async def wait(state: Conversation) -> None:
        await gate.wait()

    graph.add_node("wait", wait)
    graph.edges.discard(("tools", "agent"))
    graph.add_edge("tools", "wait").add_edge("wait", "agent")
    async with serving(settings, {"graph": graph}) as service:
        run = await submit(service)

        async def answered() -> bool:
            cursor = await database.run(lambda c: c.execute("SELECT count(*) FROM checkpoints"))
            row = await cursor.fetchone()
            return bool(row and row[0] >= 4)

        await until(answered)
        await take_first_attempts_over(database)
        gate.set()
        response = await ended(service, run)

    assert (response.status, response.output_text, called) == ("completed", "There are 3 rows", ["s"])


async def test_a_finished_task_whose_result_was_not_stored_is_run_again(settings: Settings, database: Database) -> None:
    begun: list[str] = []
    gate = asyncio.Event()

    async def loads(state: State) -> Any:
        begun.append("loads")
        return {"frame": Frame(3)}

    async def waits(state: State) -> None:
        begun.append("waits")
        await gate.wait()

    def answer(state: State) -> Any:
        return {"messages": [AIMessage(f"{state['frame'].rows} rows")]}

    graph = StateGraph(State).add_node("loads", loads).add_node("waits", waits).add_node("answer", answer)
    graph.add_edge(START, "loads").add_edge(START, "waits").add_edge(["loads", "waits"], "answer")
    async with serving(settings, {"graph": graph}) as service:
        run = await submit(service)

        async def stored() -> bool:
            cursor = await database.run(lambda c: c.execute("SELECT FROM checkpoint_writes WHERE channel = 'frame'"))
            return cursor.rowcount > 0

        await until(stored)
        await take_first_attempts_over(database)

        async def again() -> bool:
            return begun.count("waits") == 2

        await until(again)
        gate.set()
        response = await ended(service, run)

    assert response.output_text == "3 rows" and begun.count("loads") == 2


async def test_metadata_and_names_with_odd_characters_are_stored(settings: Settings) -> None:
    bad = "x\ud83d\0y"

    def node(state: Conversation) -> Any:
        return {"messages": [AIMessage(str(len(state["messages"]))), HumanMessage(bad, name=bad)]}

    graph = StateGraph(Conversation).add_node("node", node).add_edge(START, "node").compile()
    configured = graph.with_config({"metadata": {"a": bad, "n": float("nan")}, "tags": [bad], "run_name": bad})
    async with serving(settings, {"graph": configured}) as service:
        answers = [
            (await service.openai.responses.create(input="a\0b", conversation="c\u2028d")).output_text  # type: ignore[call-overload]
            for _ in range(2)
        ]
    assert answers == ["1", "4"]
