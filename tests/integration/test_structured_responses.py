"""Graphs with a structured response: its JSON is the answer, and no tool is shown that does not exist."""

from __future__ import annotations

import json
from collections.abc import Generator, Sequence
from typing import Any

import pytest
from langchain.agents import create_agent
from langchain.agents.structured_output import ProviderStrategy, ToolStrategy
from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI
from langgraph.graph import START, StateGraph
from pydantic import BaseModel, Field, SecretStr

from outlast.shared.connections import Database
from outlast.shared.settings import Settings
from outlast.worker.agents.langgraph.saver import FencedSaver
from tests.support.adder import ask, summary
from tests.support.graphs import Conversation, RuleModel, call, calling, tool_results
from tests.support.model_endpoint import Call, ModelEndpoint, Text, model_endpoint
from tests.support.runs import take_first_attempts_over
from tests.support.service import serving


class City(BaseModel):
    """A city and its weather."""

    name: str
    degrees: int = Field(default=0, le=60)


class Unknown(BaseModel):
    """There is no such city."""

    reason: str


ROME = '{"name":"Rome","degrees":21}'


@pytest.fixture
def endpoint() -> Generator[ModelEndpoint]:
    with model_endpoint() as started:
        yield started


def chat(endpoint: ModelEndpoint) -> ChatOpenAI:
    return ChatOpenAI(model="small", base_url=endpoint.url, api_key=SecretStr("none"), max_retries=0)


@tool
def degrees(city: str) -> str:
    """How warm it is."""
    return "21"


async def test_the_call_of_a_schema_becomes_the_message(settings: Settings, endpoint: ModelEndpoint) -> None:
    endpoint.will(Call("degrees", {"city": "Rome"}))
    endpoint.will(Call("City", {"name": "Rome", "degrees": 21}))
    graph = create_agent(chat(endpoint), [degrees], response_format=ToolStrategy(City))
    response = await ask(settings, graph)

    assert summary(response) == ['degrees({"city":"Rome"}) -> 21', ROME]
    assert response.custom_outputs == {"structured_response": json.loads(ROME)}


async def test_a_client_that_parses_gets_it_too(settings: Settings, endpoint: ModelEndpoint) -> None:
    endpoint.will(Text("Here you are."), Call("City", {"name": "Rome", "degrees": 21}))
    async with serving(
        settings, {"graph": create_agent(chat(endpoint), response_format=ToolStrategy(City))}
    ) as service:
        response = await service.openai.responses.parse(input="Rome?", text_format=City)

    assert response.output_parsed == City(name="Rome", degrees=21)
    assert "response_format" not in endpoint.requests[0].body  # the graph's own form comes first


async def test_calls_that_do_not_fit_are_no_tool_calls_either(settings: Settings, endpoint: ModelEndpoint) -> None:
    endpoint.will(Call("City", {"name": "Rome", "degrees": 99}))
    endpoint.will(Call("City", {"name": "Rome"}), Call("Unknown", {"reason": "?"}))
    endpoint.will(Call("Unknown", {"reason": "no map"}))
    graph = create_agent(chat(endpoint), response_format=ToolStrategy(City | Unknown))
    response = await ask(settings, graph)

    assert summary(response) == ['{"reason":"no map"}']
    assert len(endpoint.requests) == 3


async def test_each_turn_of_a_conversation_has_its_own(settings: Settings, endpoint: ModelEndpoint) -> None:
    for _ in range(2):
        endpoint.will(Call("City", {"name": "Rome", "degrees": 21}))
    graph = create_agent(chat(endpoint), response_format=ToolStrategy(City, tool_message_content="Done."))
    async with serving(settings, {"graph": graph}) as service:
        answers = [await service.openai.responses.create(input="Rome?", conversation="c") for _ in range(2)]

    assert [summary(answer) for answer in answers] == [[ROME], [ROME]]


async def test_a_message_that_is_the_response_is_not_said_again(settings: Settings, endpoint: ModelEndpoint) -> None:
    endpoint.will(Text('{"name": "Rome"}'))
    response = await ask(settings, create_agent(chat(endpoint), response_format=ProviderStrategy(City)))

    assert summary(response) == ['{"name": "Rome"}']
    assert response.custom_outputs == {"structured_response": {"name": "Rome", "degrees": 0}}


async def test_a_model_that_is_asked_once_more_for_it_is_heard(settings: Settings, endpoint: ModelEndpoint) -> None:
    """As `create_react_agent` does it."""

    class State(Conversation):
        structured_response: City

    async def respond(state: State) -> dict[str, Any]:
        model = chat(endpoint).with_structured_output(City, method="function_calling")
        return {"structured_response": await model.ainvoke(state["messages"])}

    endpoint.will(Text("It is warm."))
    endpoint.will(Call("City", {"name": "Rome", "degrees": 21}))
    graph = StateGraph(State).add_node("agent", create_agent(chat(endpoint))).add_node("respond", respond)
    response = await ask(settings, graph.add_edge(START, "agent").add_edge("agent", "respond"))

    assert summary(response) == ["It is warm.", ROME]


@pytest.mark.parametrize("strategy", [ToolStrategy(City), ProviderStrategy(City)])
async def test_an_agent_within_a_graph_speaks_once(settings: Settings, endpoint: ModelEndpoint, strategy: Any) -> None:
    is_tool = isinstance(strategy, ToolStrategy)
    endpoint.will(Call("City", {"name": "Rome", "degrees": 21}) if is_tool else Text(ROME))
    agent = create_agent(chat(endpoint), response_format=strategy)

    class State(Conversation):
        structured_response: Any

    async def again(state: State) -> dict[str, Any]:
        return {"structured_response": state["structured_response"]}

    graph = StateGraph(State).add_node("agent", agent).add_node("again", again)
    response = await ask(settings, graph.add_edge(START, "agent").add_edge("agent", "again"))

    assert summary(response) == [ROME]


async def test_a_tool_with_the_name_of_a_schema_elsewhere_is_a_tool(settings: Settings) -> None:
    @tool("City")
    def city(name: str) -> str:
        """Look a city up."""
        return "found"

    def rule(messages: Sequence[BaseMessage], _options: dict[str, Any]) -> AIMessage:
        return (
            AIMessage("Done.") if tool_results(messages) else AIMessage("", tool_calls=[call("City", "c", name="Rome")])
        )

    create_agent(RuleModel(answer=rule), response_format=ToolStrategy(City))
    response = await ask(settings, calling(RuleModel(answer=rule), city))

    assert summary(response) == ['City({"name":"Rome"}) -> found', "Done."]


async def test_a_lost_attempt_has_said_it_once(
    settings: Settings, database: Database, endpoint: ModelEndpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next one finds the call in the state, with nothing that tells it from a tool's."""
    endpoint.will(Call("City", {"name": "Rome"}))
    put = FencedSaver.aput

    async def aput(self: FencedSaver, config: Any, checkpoint: Any, *given: Any) -> Any:
        stored = await put(self, config, checkpoint, *given)
        if "structured_response" in checkpoint["channel_values"]:
            await take_first_attempts_over(database)
        return stored

    monkeypatch.setattr(FencedSaver, "aput", aput)
    async with serving(
        settings, {"graph": create_agent(chat(endpoint), response_format=ToolStrategy(City))}
    ) as service:
        [*_, last] = [event async for event in await service.openai.responses.create(input="Rome?", stream=True)]
        outcome: Any = last

    assert summary(outcome.response) == ['{"name":"Rome","degrees":0}']
    assert len(endpoint.requests) == 1
