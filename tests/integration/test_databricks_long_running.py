"""What Databricks' templates ask of a server of long-running agents, at the root path that they use: seven ways to call
an agent, all with the openai client alone. Here the agent stops in mid-answer until the test lets it go on."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass
from typing import Any

import openai
import pytest
from langchain_core.messages import AIMessage
from langgraph.graph import END, START, MessagesState, StateGraph

from outlast.agent import Context, Request, ToolCall, ToolResult
from outlast.shared.settings import Settings
from tests.support.service import serving
from tests.support.waiting import until

QUESTION: Any = [{"role": "user", "content": "What time is it?"}]
ANSWER = "It is noon."


def a_function(gate: asyncio.Event) -> object:
    async def clock(_request: Request, _context: Context):
        yield ToolCall("clock", {}, call_id="c1")
        yield ToolResult("c1", "12:00")
        yield "It is"
        await gate.wait()
        yield " noon."

    return clock


def a_graph(gate: asyncio.Event) -> object:
    async def answer(state: MessagesState) -> dict[str, Any]:
        await gate.wait()
        return {"messages": [AIMessage(ANSWER)]}

    return StateGraph(MessagesState).add_node(answer).add_edge(START, "answer").add_edge("answer", END).compile()


@dataclass
class Agent:
    """A served agent, as the templates' clients reach it."""

    client: openai.AsyncOpenAI
    gate: asyncio.Event

    async def ended(self, response_id: str) -> Any:
        """The response, by asking until it has ended."""

        async def finished() -> Any:
            found = await self.client.responses.retrieve(response_id)
            return None if found.status in ("queued", "in_progress") else found

        return await until(finished)


@pytest.fixture(params=[a_function, a_graph])
async def agent(settings: Settings, request: pytest.FixtureRequest) -> AsyncGenerator[Agent]:
    gate = asyncio.Event()
    make: Callable[[asyncio.Event], object] = request.param
    async with (
        serving(settings, {"clock": make(gate)}) as service,
        openai.AsyncOpenAI(base_url=service.url, api_key="local", max_retries=0, timeout=20) as client,
    ):
        yield Agent(client, gate)


def said(events: list[Any]) -> str:
    return "".join(event.delta for event in events if event.type == "response.output_text.delta")


async def left(stream: Any) -> tuple[str, list[Any]]:
    """The response's id and the events until the run is under way; then the client is gone."""
    events: list[Any] = []
    async for event in stream:
        events.append(event)
        if event.type == "response.in_progress":
            break
    await stream.close()
    return next(event.response.id for event in events if event.response), events


async def test_a_plain_call_answers(agent: Agent) -> None:
    agent.gate.set()
    response = await agent.client.responses.create(input=QUESTION)

    assert (response.status, response.output_text) == ("completed", ANSWER)


async def test_a_stream_tells_the_answer_as_it_comes(agent: Agent) -> None:
    agent.gate.set()
    events = [event async for event in await agent.client.responses.create(input=QUESTION, stream=True)]

    assert said(events) == ANSWER


async def test_a_background_response_is_polled_to_its_end(agent: Agent) -> None:
    response = await agent.client.responses.create(input=QUESTION, background=True)
    assert response.status in ("queued", "in_progress")
    agent.gate.set()

    ended = await agent.ended(response.id)
    assert (ended.status, ended.output_text) == ("completed", ANSWER)


async def test_a_background_response_is_streamed(agent: Agent) -> None:
    agent.gate.set()
    stream = await agent.client.responses.create(input=QUESTION, background=True, stream=True)

    assert said([event async for event in stream]) == ANSWER


async def test_a_stream_that_was_left_goes_on_after_its_cursor(agent: Agent) -> None:
    response_id, before = await left(await agent.client.responses.create(input=QUESTION, background=True, stream=True))
    cursor = before[-1].sequence_number
    resumed = await agent.client.responses.retrieve(response_id, stream=True, starting_after=cursor)
    agent.gate.set()
    after = [event async for event in resumed]

    assert [event.sequence_number for event in after] == list(range(cursor + 1, cursor + 1 + len(after)))
    assert said(before) + said(after) == ANSWER


async def test_a_stream_that_was_left_is_polled_to_its_end(agent: Agent) -> None:
    response_id, _ = await left(await agent.client.responses.create(input=QUESTION, background=True, stream=True))
    agent.gate.set()

    ended = await agent.ended(response_id)
    assert (ended.status, ended.output_text) == ("completed", ANSWER)


async def test_the_stream_helper_can_be_left_and_the_response_polled(agent: Agent) -> None:
    async with agent.client.responses.stream(model="any", input=QUESTION, background=True) as stream:
        events: list[Any] = []
        async for event in stream:
            events.append(event)
            if event.type == "response.in_progress":
                break
    assert events[-1].sequence_number == len(events) - 1
    agent.gate.set()

    ended = await agent.ended(events[0].response.id)
    assert (ended.status, ended.output_text) == ("completed", ANSWER)
