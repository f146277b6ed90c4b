"""A graph whose model's endpoint is busy, or breaks off: through LangChain's real client, and the whole service."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from langchain.agents import create_agent
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI

from outlast.shared.connections import Database
from outlast.shared.settings import Settings
from tests.support.adder import summary
from tests.support.log import stored_lines
from tests.support.model_endpoint import Call, Cut, ModelEndpoint, Raw, Stall, Text, Usage, model_endpoint
from tests.support.service import Service, serving
from tests.support.streams import check_stream

SECRET = "sk-a-key-that-nobody-may-see"


@pytest.fixture
def endpoint() -> Generator[ModelEndpoint]:
    with model_endpoint() as started:
        yield started


class Counting:
    """The usual agent, with a tool that counts."""

    def __init__(self, endpoint: ModelEndpoint, **model: Any) -> None:
        self.called = 0

        @tool
        async def count() -> str:
            """Count."""
            self.called += 1
            return str(self.called)

        client = ChatOpenAI(model="small", base_url=endpoint.url, api_key=SECRET, **model)  # type: ignore[arg-type]
        self.graph = create_agent(client, [count])

    @asynccontextmanager
    async def served(self, settings: Settings) -> AsyncGenerator[Service]:
        brief = settings.model_copy(update={"retry_seconds": 0.01, "lease_seconds": 10.0})
        async with serving(brief, {"counting": self.graph}) as service:
            yield service


@pytest.mark.parametrize(("model", "attempts"), [({"max_retries": 0}, 4), ({}, 2)], ids=["ours alone", "its own too"])
async def test_an_endpoint_that_refuses_twice_and_cuts_a_stream_once_is_outlasted(
    endpoint: ModelEndpoint, settings: Settings, database: Database, model: dict[str, Any], attempts: int
) -> None:
    agent = Counting(endpoint, **model)
    endpoint.will(Text("I count."), Call("count", call_id="call_1"))
    endpoint.will_refuse(429, SECRET, retry_after="0.01")
    endpoint.will_refuse(429, SECRET, retry_after="0.01")
    endpoint.will(Text("I have cou"), Cut())
    endpoint.will(Text("I have counted one."), Usage(20, 5))

    async with (
        agent.served(settings) as service,
        service.openai.responses.stream(model="counting", input="Count.") as stream,
    ):
        seen: list[Any] = [event async for event in stream]
        response: Any = await stream.get_final_response()

    assert (response.status, response.attempt_number) == ("completed", attempts)
    assert summary(response) == ["I count.", "count({}) -> 1", "I have counted one."]
    assert (agent.called, len(endpoint.requests)) == (1, 5)
    lines = await stored_lines(database, response.id)
    events = check_stream(lines)
    assert [event["sequence_number"] for event in events] == [event.sequence_number for event in seen]
    taken_back = [
        event["item"]["content"][0]["text"]
        for event in events
        if event["type"] == "response.output_item.done" and event["item"]["status"] == "incomplete"
    ]
    assert taken_back == ["I have cou"]
    assert SECRET not in "".join(lines)


@pytest.mark.parametrize(
    "failure",
    [
        (Text("Half"), Raw('{"error": {"message": "no", "type": "server_error"}}')),
        (Text("Half"), Stall()),
        (Cut(),),
    ],
    ids=["an error in the stream", "silence", "cut at once"],
)
async def test_an_answer_that_does_not_come_to_its_end_is_asked_for_again(
    endpoint: ModelEndpoint, settings: Settings, failure: Any
) -> None:
    agent = Counting(endpoint, max_retries=0, timeout=0.5, stream_chunk_timeout=0.5)
    endpoint.will(*failure)
    endpoint.will(Text("Whole."))
    async with agent.served(settings) as service:
        response = await service.openai.responses.create(input="hi")

    assert (response.status, summary(response)) == ("completed", ["Whole."])


async def test_a_request_that_is_wrong_is_not_made_again(endpoint: ModelEndpoint, settings: Settings) -> None:
    agent = Counting(endpoint, stream_usage=True)
    endpoint.will_refuse(400, SECRET)
    async with agent.served(settings) as service:
        response = await service.openai.responses.create(input="hi")

    assert response.error is not None
    assert response.error.message == "The agent failed with OpenAIInvalidRequestError."
    assert len(endpoint.requests) == 1
