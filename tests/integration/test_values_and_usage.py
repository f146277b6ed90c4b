"""`custom_outputs` and `usage` of runs that lost a worker: values of what survives, tokens of all attempts."""

from __future__ import annotations

import asyncio
import operator
from collections.abc import Sequence
from typing import Annotated, Any

import pytest
from langchain_core.messages import AIMessage, BaseMessage
from langgraph.graph import START, StateGraph
from langgraph.types import Command

from outlast.agent import Approval, ClientCall, Context, Request, State, Usage
from outlast.shared.connections import Database
from outlast.shared.settings import Settings
from tests.support.adder import summary
from tests.support.graphs import Conversation, RuleModel
from tests.support.log import check_log, stored_lines
from tests.support.runs import take_first_attempts_over
from tests.support.service import serving
from tests.support.waiting import until


class Noting(Conversation):
    custom_outputs: Annotated[dict[str, Any], operator.or_]
    structured_response: dict[str, Any]


def counting(messages: Sequence[BaseMessage], options: dict[str, Any]) -> AIMessage:
    spent = {"input_tokens": 10, "output_tokens": 1, "total_tokens": 11}
    return AIMessage("Words.", usage_metadata=spent)  # type: ignore[arg-type]


class HeldUp:
    """A node that is reached once in vain."""

    def __init__(self) -> None:
        self.reached = 0
        self.go = asyncio.Event()

    async def __call__(self, state: Noting) -> dict[str, Any]:
        self.reached += 1
        if self.reached == 1:
            await self.go.wait()
        return {"custom_outputs": {"late": self.reached}}


def a_graph(held_up: HeldUp, *, beside: bool) -> StateGraph[Any, Any, Any, Any]:
    """Steps that say nothing, and one that speaks; the last is held up after the others, or beside them."""
    model = RuleModel(answer=counting)

    async def silent(state: Noting) -> Any:
        await model.ainvoke("count", config={"tags": ["nostream"]})
        return Command(update=[("custom_outputs", {"silent": 1})])

    def structured(state: Noting) -> list[Any]:
        return [{"structured_response": {"value": 5}}, Command(update={"custom_outputs": {"both": 1}})]

    async def speaking(state: Noting) -> dict[str, Any]:
        return {"messages": [await model.ainvoke(state["messages"])]}

    graph = StateGraph(Noting)
    graph.add_node("silent", silent)
    graph.add_node("structured", structured)
    graph.add_node("speaking", speaking)
    graph.add_node("held_up", held_up)
    graph.add_edge(START, "speaking").add_edge("speaking", "silent").add_edge("silent", "structured")
    graph.add_edge("silent" if beside else "structured", "held_up")
    return graph


async def ended(service: Any, run: str) -> Any:
    async def found() -> Any:
        response = await service.openai.responses.retrieve(run)
        return None if response.status in ("queued", "in_progress") else response

    return await until(found)


@pytest.mark.parametrize("beside", [False, True])
async def test_values_and_tokens_of_finished_steps_that_said_nothing_outlive_their_worker(
    settings: Settings, database: Database, beside: bool
) -> None:
    held_up = HeldUp()
    async with serving(settings, {"graph": a_graph(held_up, beside=beside)}) as service:
        run = (await service.openai.responses.create(input="x", background=True)).id

        async def kept() -> bool:
            cursor = await database.run(lambda c: c.execute("SELECT saved FROM run_saves"))
            row = await cursor.fetchone()
            return held_up.reached == 1 and row is not None and "structured_response" in row[0]

        await until(kept)
        if beside:

            async def branch_is_kept() -> bool:
                query = "SELECT FROM checkpoint_writes WHERE channel = 'structured_response'"
                return (await database.run(lambda c: c.execute(query))).rowcount > 0

            await until(branch_is_kept)
        await take_first_attempts_over(database)
        response = await ended(service, run)
        check_log(await stored_lines(database, run))

    assert (response.status, response.attempt_number, held_up.reached) == ("completed", 2, 2)
    assert summary(response) == ["Words.", '{"value":5}']
    assert response.custom_outputs == {"silent": 1, "both": 1, "structured_response": {"value": 5}, "late": 2}
    assert (response.usage.input_tokens, response.usage.total_tokens) == (20, 22)


async def test_what_a_function_agent_yields_before_it_saves_outlives_its_worker(
    settings: Settings, database: Database
) -> None:
    reached = asyncio.Event()

    async def agent(_request: Request, context: Context):
        if not context.saved:
            yield State({"before": 1})
            yield ClientCall("f", {}, "call_1")
            yield Approval("g", {}, "mcpr_1")
            yield Usage(10, 1)
            await context.save(at=1)
            yield State({"after": 1})
            yield Usage(100)
            yield "Not to be kept."
            yield Approval("g", {}, "mcpr_2")
            reached.set()
            await asyncio.Event().wait()
        yield f"Attempt {context.attempt}."

    async with serving(settings, {"agent": agent}) as service:
        run = (await service.openai.responses.create(input="x", background=True)).id
        await asyncio.wait_for(reached.wait(), 20)

        async def told() -> bool:
            return any('"after"' in line for line in await stored_lines(database, run))

        await until(told)
        await take_first_attempts_over(database)
        response = await ended(service, run)
        events = check_log(await stored_lines(database, run))

    assert response.status == "completed"
    assert [item.type for item in response.output] == ["message", "function_call", "mcp_approval_request"]
    assert (response.output_text, response.output[2].id) == ("Attempt 2.", "mcpr_1")
    assert response.custom_outputs == {"before": 1}
    assert response.usage.total_tokens == 111
    assert [event["outlast"]["attempt"] for event in events if "outlast" in event] == [2]
