"""`text.format` with langchain-openai's client, as it is, and an endpoint that keeps what it was asked for."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

import pytest
from langchain.agents import create_agent
from langchain_core.messages import AIMessage, HumanMessage
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI
from langgraph.graph import START, StateGraph
from pydantic import BaseModel, SecretStr

from outlast.agent import Context, Request
from outlast.databricks import ChatDatabricks
from outlast.shared.settings import Settings
from tests.support.adder import ask, summary
from tests.support.graphs import Conversation, RuleModel, calling
from tests.support.model_endpoint import Call, ModelEndpoint, Refusal, Text, Usage, model_endpoint
from tests.support.service import serving


class City(BaseModel):
    """A city and its weather."""

    name: str
    degrees: int | None = None


ROME = '{"name": "Rome", "degrees": 21}'
FORM: Any = {"format": {"type": "json_schema", "name": "City", "strict": False, "schema": City.model_json_schema()}}
OBJECT: Any = {"format": {"type": "json_object"}}


@pytest.fixture
def endpoint() -> Generator[ModelEndpoint]:
    with model_endpoint() as started:
        yield started


def chat(endpoint: ModelEndpoint, **options: Any) -> ChatOpenAI:
    return ChatOpenAI(model="small", base_url=endpoint.url, api_key=SecretStr("none"), max_retries=0, **options)


@tool
def degrees(city: str, unit: str = "C") -> str:
    """How warm it is."""
    return f"21 {unit} in {city}"


@pytest.mark.parametrize("options", [{}, {"disable_streaming": True}, {"extra_body": {"seed": 3}}])
async def test_a_schema_reaches_the_model_beside_its_tools_and_the_answer_is_parsed(
    settings: Settings, endpoint: ModelEndpoint, options: dict[str, Any]
) -> None:
    endpoint.will(Call("degrees", {"city": "Rome"}))
    endpoint.will(Text(ROME), Usage(12, 4))
    async with serving(settings, {"graph": create_agent(chat(endpoint, **options), [degrees])}) as service:
        response = await service.openai.responses.parse(input="Rome?", text_format=City)

    assert response.output_parsed == City(name="Rome", degrees=21)
    form: Any = response.text.format if response.text else None
    assert (form.type, form.name, form.strict) == ("json_schema", "City", True)
    assert len(endpoint.requests) == 2
    for request in endpoint.requests:
        asked = request.body["response_format"]
        assert (asked["type"], asked["json_schema"]["name"], asked["json_schema"]["strict"]) == (
            "json_schema", "City", True
        )  # fmt: skip
        assert asked["json_schema"]["schema"] == form.schema_
        assert request.tools == ["degrees"]
        assert "strict" not in request.body["tools"][0]["function"]
        assert request.body.get("seed") == options.get("extra_body", {}).get("seed")


async def test_an_answer_of_a_schema_is_streamed(settings: Settings, endpoint: ModelEndpoint) -> None:
    endpoint.will(Text(ROME))
    async with (
        serving(settings, {"graph": create_agent(chat(endpoint))}) as service,
        service.openai.responses.stream(input="Rome?", model="graph", text_format=City) as stream,
    ):
        deltas = [event.delta async for event in stream if event.type == "response.output_text.delta"]
        final = await stream.get_final_response()

    assert len(deltas) > 3
    assert final.output_parsed == City(name="Rome", degrees=21)


async def test_json_without_a_schema_is_asked_for(settings: Settings, endpoint: ModelEndpoint) -> None:
    endpoint.will(Text("{}"))
    response = await ask(settings, create_agent(chat(endpoint)), text=OBJECT)

    assert response.output_text == "{}"
    assert endpoint.requests[0].body["response_format"] == {"type": "json_object"}


@pytest.mark.parametrize("form", [FORM, OBJECT])
@pytest.mark.parametrize("text", ["It is warm.", '{"name": "Ro', "[1]", '```json\n{"name": "Rome"}\n```'])
async def test_an_answer_of_another_form_fails_the_run(
    settings: Settings, endpoint: ModelEndpoint, form: Any, text: str
) -> None:
    endpoint.will(Text(text))
    response = await ask(settings, create_agent(chat(endpoint)), text=form)

    assert (response.status, response.error.code) == ("failed", "invalid_answer_format")
    assert "'text.format'" in response.error.message and "'max_output_tokens'" in response.error.message


async def test_an_endpoint_that_refuses_the_form_is_named(settings: Settings, endpoint: ModelEndpoint) -> None:
    endpoint.otherwise = lambda _: Refusal(400, "unknown field: response_format")
    response = await ask(settings, create_agent(chat(endpoint)), text=FORM)

    assert (response.status, response.error.code) == ("failed", "response_format_not_supported")
    assert "'text.format'" in response.error.message and "unknown field" not in response.error.message


async def test_what_is_said_beside_a_tool_call_is_reasoning_where_json_is_asked_for(
    settings: Settings, endpoint: ModelEndpoint
) -> None:
    endpoint.will(Text("  Let me look."), Call("degrees", {"city": "Rome"}))
    endpoint.will(Text("\n"), Text(ROME))
    async with serving(settings, {"graph": create_agent(chat(endpoint), [degrees])}) as service:
        response = await service.openai.responses.parse(input="Rome?", text_format=City)

    assert response.output_parsed == City(name="Rome", degrees=21)
    assert [item.type for item in response.output] == ["reasoning", "mcp_call", "message"]
    assert summary(response)[0] == "reasoning:   Let me look."


async def test_only_models_whose_words_are_shown_are_given_the_form(
    settings: Settings, endpoint: ModelEndpoint
) -> None:
    model = chat(endpoint)

    @tool
    async def research() -> str:
        """Ask another model."""
        return (await model.ainvoke([HumanMessage("inside a tool")])).text

    async def route(state: Conversation) -> dict[str, Any]:
        await model.ainvoke([HumanMessage("nostream")], {"tags": ["nostream"]})
        await model.with_structured_output(City, method="function_calling").ainvoke([HumanMessage("form of its own")])
        return {}

    graph = StateGraph(Conversation).add_node("route", route).add_node("agent", create_agent(model, [research]))
    endpoint.will(Text("secret"))
    endpoint.will(Call("City", {"name": "Oslo"}))
    endpoint.will(Call("research"))
    endpoint.will(Text("found"))
    endpoint.will(Text(ROME))
    response = await ask(settings, graph.add_edge(START, "route").add_edge("route", "agent"), text=FORM)

    assert response.status == "completed", response.error
    assert ["response_format" in request.body for request in endpoint.requests] == [False, False, True, False, True]


async def test_a_model_that_cannot_be_told_may_still_answer_in_the_form(settings: Settings) -> None:
    response = await ask(settings, calling(RuleModel(answer=lambda _m, _o: AIMessage(ROME))), text=FORM)
    assert response.output_text == ROME
    response = await ask(settings, calling(RuleModel(answer=lambda _m, _o: AIMessage("Warm."))), text=FORM)
    assert response.error.code == "invalid_answer_format"


async def test_a_run_that_ends_with_a_call_for_the_client_has_not_answered_yet(
    settings: Settings, endpoint: ModelEndpoint
) -> None:
    endpoint.will(Call("locate"))
    endpoint.will(Text(ROME))
    locate: Any = {"type": "function", "name": "locate", "parameters": {"type": "object", "properties": {}}}
    async with serving(settings, {"graph": create_agent(chat(endpoint))}) as service:
        create = service.openai.responses.create
        first = await create(input="Where?", tools=[locate], text=FORM)
        answer: Any = {"type": "function_call_output", "call_id": first.output[0].call_id, "output": "Rome"}  # type: ignore[union-attr]
        second = await create(input=[answer], previous_response_id=first.id, tools=[locate], text=FORM)

    assert [item.type for item in first.output] == ["function_call"]
    assert (second.status, second.output_text) == ("completed", ROME)


@pytest.mark.parametrize(("text", "status"), [(ROME, "completed"), ("Warm.", "failed"), ("", "failed")])
async def test_the_answer_of_a_function_agent_is_looked_at_too(settings: Settings, text: str, status: str) -> None:
    async def agent(request: Request, context: Context):
        assert request.body["text"] == FORM
        yield text

    response = await ask(settings, agent, text=FORM)
    assert response.status == status
    assert response.error is None or response.error.code == "invalid_answer_format"


async def test_a_schema_that_is_none_fails_before_the_model_is_asked(
    settings: Settings, endpoint: ModelEndpoint
) -> None:
    wrong: Any = {"format": {"type": "json_schema", "name": "x", "schema": {"type": "city"}}}
    response = await ask(settings, create_agent(chat(endpoint)), text=wrong)

    assert response.error.code == "invalid_json_schema"
    assert endpoint.requests == []


# -- what a stream has cost --------------------------------------------------------------------------------------------


async def test_a_stream_is_asked_what_it_has_cost(settings: Settings, endpoint: ModelEndpoint) -> None:
    endpoint.will(Text("Hello."), Usage(12, 4, cached_tokens=2))
    response = await ask(settings, create_agent(chat(endpoint)))

    assert endpoint.requests[0].body["stream_options"] == {"include_usage": True}
    assert (response.usage.input_tokens, response.usage.output_tokens) == (12, 4)


@pytest.mark.parametrize("options", [{"stream_usage": False}, {"disable_streaming": True}])
async def test_its_author_may_leave_that_out(
    settings: Settings, endpoint: ModelEndpoint, options: dict[str, Any]
) -> None:
    endpoint.will(Text("Hello."), Usage(12, 4))
    response = await ask(settings, create_agent(chat(endpoint, **options)))

    assert response.output_text == "Hello."
    assert "stream_options" not in endpoint.requests[0].body


@pytest.mark.parametrize("ways", ["ainvoke", "astream", "invoke", "stream"])
async def test_an_endpoint_that_does_not_know_the_question_is_not_asked_again(
    settings: Settings, endpoint: ModelEndpoint, ways: str
) -> None:
    def otherwise(request: Any) -> Any:
        return Refusal(400, "Extra inputs are not permitted") if "stream_options" in request.body else [Text("Hello.")]

    endpoint.otherwise = otherwise
    model = chat(endpoint)

    async def node(state: Conversation) -> dict[str, Any]:
        if ways == "ainvoke":
            return {"messages": [await model.ainvoke(state["messages"])]}
        return {"messages": [chunk async for chunk in model.astream(state["messages"])][:0]}

    def sync_node(state: Conversation) -> dict[str, Any]:
        if ways == "invoke":
            return {"messages": [model.invoke(state["messages"])]}
        return {"messages": list(model.stream(state["messages"]))[:0]}

    graph = StateGraph(Conversation).add_node("node", node if ways.startswith("a") else sync_node)
    async with serving(settings, {"graph": graph.add_edge(START, "node")}) as service:
        answers = [(await service.openai.responses.create(input="hi")).output_text for _ in range(2)]

    assert answers == ["Hello.", "Hello."]
    assert ["stream_options" in request.body for request in endpoint.requests] == [True, False, False]


async def test_what_is_wrong_for_another_reason_is_tried_without_the_question_until_there_was_an_answer(
    settings: Settings, endpoint: ModelEndpoint
) -> None:
    wrong = "The agent failed with OpenAIInvalidRequestError."
    endpoint.will_refuse(400, "too long")
    endpoint.will_refuse(400, "too long")
    endpoint.will(Text("Hello."), Usage(12, 4))
    endpoint.will_refuse(400, "too long")
    async with serving(settings, {"graph": create_agent(chat(endpoint))}) as service:
        answers = [await service.openai.responses.create(input="hi") for _ in range(3)]

    assert [answer.error and answer.error.message for answer in answers] == [wrong, None, wrong]
    assert [answer.usage and answer.usage.total_tokens for answer in answers] == [0, 16, 0]
    assert ["stream_options" in request.body for request in endpoint.requests] == [True, False, True, True]


async def test_a_databricks_model_is_given_the_form_too(
    settings: Settings, endpoint: ModelEndpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATABRICKS_HOST", endpoint.origin)
    monkeypatch.setenv("DATABRICKS_TOKEN", "none")
    endpoint.will(Text(ROME))
    response = await ask(settings, create_agent(ChatDatabricks(endpoint="large", max_retries=0)), text=FORM)

    assert response.output_text == ROME, response.error
    assert endpoint.requests[0].body["response_format"]["json_schema"]["name"] == "City"


async def test_a_client_without_a_form_sees_what_it_always_saw(settings: Settings, endpoint: ModelEndpoint) -> None:
    endpoint.will(Text("Hello."))
    response = await ask(settings, create_agent(chat(endpoint)), text={"format": {"type": "text"}})

    assert response.output_text == "Hello."
    assert "response_format" not in endpoint.requests[0].body
