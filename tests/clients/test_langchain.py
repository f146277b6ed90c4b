"""LangChain's ChatOpenAI as a client: right answers, and the server's tools are left to the server."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from typing import Any

import pytest
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage, HumanMessage, ToolMessage
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI
from pydantic import BaseModel, SecretStr

from outlast.shared.connections import Database
from outlast.shared.settings import Settings
from tests.support.clients import (
    ASKED_FIRST,
    ASKED_SECOND,
    FIRST,
    OSLO,
    SECOND,
    Weather,
    forming_service,
    weather_service,
)
from tests.support.model_endpoint import Call

QUESTIONS = [HumanMessage("What is the weather?"), HumanMessage("And now?")]


@pytest.fixture
async def served(settings: Settings, database: Database) -> AsyncGenerator[Weather]:
    async with weather_service(settings, database) as running:
        yield running


class Assistant:
    """What an agent's loop does with the model: run the tools that it calls, until it calls none."""

    def __init__(self, url: str, model: str, *, streaming: bool, **options: Any) -> None:
        self.executed = 0

        @tool
        def get_weather(city: str) -> str:
            """Tells the weather."""
            self.executed += 1
            return f"3 degrees in {city}"

        self._tool = get_weather
        self._streaming = streaming
        chat = ChatOpenAI(
            model=model,
            base_url=f"{url}/v1",
            api_key=SecretStr("none"),
            use_responses_api=True,
            max_retries=0,
            timeout=20,
            **options,
        )
        self._model = chat.bind_tools([get_weather])

    async def converse(self) -> list[str]:
        """The answer to each question."""
        messages: list[BaseMessage] = []
        answers: list[str] = []
        for question in QUESTIONS:
            messages.append(question)
            while (said := await self._ask(messages)).tool_calls:
                messages.append(said)
                for call in said.tool_calls:
                    output = await self._tool.ainvoke(call["args"])
                    messages.append(ToolMessage(output, tool_call_id=call["id"]))
            messages.append(said)
            answers.append(str(said.text))
        return answers

    async def _ask(self, messages: list[BaseMessage]) -> AIMessage:
        if not self._streaming:
            return await self._model.ainvoke(messages)
        whole: AIMessageChunk | None = None
        async for chunk in self._model.astream(messages):
            assert isinstance(chunk, AIMessageChunk)
            whole = chunk if whole is None else whole + chunk
        assert whole is not None
        return whole


Make = Callable[[str], Assistant]


@pytest.fixture(params=["responses/v1", "v0", "v1"])
def version(request: pytest.FixtureRequest) -> str:
    """How the client keeps the items of a response in its message, and sends them back."""
    return request.param


@pytest.mark.parametrize("streaming", [True, False])
async def test_the_servers_tools_are_not_run_again(served: Weather, version: str, streaming: bool) -> None:
    assistant = Assistant(served.url, "weather", streaming=streaming, output_version=version)

    assert await assistant.converse() == [FIRST, SECOND]
    assert (assistant.executed, served.started) == (0, {"weather": 2})


@pytest.mark.parametrize("streaming", [True, False])
async def test_a_call_of_its_own_is_answered(served: Weather, version: str, streaming: bool) -> None:
    assistant = Assistant(served.url, "asking", streaming=streaming, output_version=version)

    assert await assistant.converse() == [ASKED_FIRST, ASKED_SECOND]
    assert (assistant.executed, served.started) == (2, {"asking": 4})


async def test_what_was_superseded_may_be_sent_back(served: Weather, version: str) -> None:
    """The text of a stream is all that was said; a client that reads no more than that shows the lost part as well."""
    streaming = Assistant(served.url, "lost", streaming=True, output_version=version)
    whole = Assistant(served.url, "lost", streaming=False, output_version=version)

    # In its oldest form a message is all that was streamed, under the id of the first part: nobody can tell them apart.
    again = f"99 deg{FIRST} Before: 99 deg{FIRST}" if version == "v0" else f"99 deg{SECOND}"
    assert await streaming.converse() == [f"99 deg{FIRST}", again]
    assert await whole.converse() == [FIRST, SECOND]
    assert (streaming.executed, whole.executed, served.started) == (0, 0, {"lost": 8})


@pytest.mark.parametrize("streaming", [True, False])
async def test_a_previous_response_is_continued(served: Weather, streaming: bool) -> None:
    assistant = Assistant(served.url, "asking", streaming=streaming, use_previous_response_id=True)

    assert await assistant.converse() == [ASKED_FIRST, ASKED_FIRST]  # its agent is told nothing but the newest items
    assert assistant.executed == 2


class City(BaseModel):
    city: str
    degrees: int


@pytest.mark.parametrize("method", ["json_schema", "function_calling"])
async def test_an_answer_of_a_schema_is_read(settings: Settings, version: str, method: Any) -> None:
    async with forming_service(settings) as forming:
        chat = ChatOpenAI(
            model="city",
            base_url=f"{forming.url}/v1",
            api_key=SecretStr("none"),
            use_responses_api=True,
            output_version=version,
            max_retries=0,
            timeout=20,
        )
        if method == "function_calling":
            forming.endpoint.otherwise = lambda request: [Call("City", OSLO)]
        found: Any = await chat.with_structured_output(City, method=method).ainvoke("How warm is it in Oslo?")
    assert found == City(**OSLO)
