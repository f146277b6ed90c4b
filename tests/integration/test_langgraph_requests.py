"""What a request asks of an agent's model: it counts as honoured when the model received it."""

from __future__ import annotations

from typing import Any

import pytest
from langchain_core.messages import SystemMessage
from langgraph.graph import START, StateGraph

from outlast.shared.settings import Settings
from tests.support.adder import add, rule
from tests.support.graphs import Call, Conversation, RuleModel, calling, function
from tests.support.service import serving

WEATHER = function("get_weather")


async def received(settings: Settings, *tools: Any, **request: Any) -> Call:
    """The model's first call of a run of this request."""
    model = RuleModel(answer=rule)
    given: dict[str, Any] = {"input": "hello"} | request
    async with serving(settings, {"graph": calling(model, *tools)}) as service:
        response = await service.openai.responses.create(**given)
    assert response.status == "completed", response.error
    return model.calls[0]


@pytest.mark.parametrize(
    ("parameter", "value", "option"),
    [("temperature", 0.25, "temperature"), ("top_p", 0.5, "top_p"), ("max_output_tokens", 99, "max_tokens")],
)
async def test_parameters_reach_the_model(settings: Settings, parameter: str, value: Any, option: str) -> None:
    assert (await received(settings, **{parameter: value})).options[option] == value


async def test_without_parameters_the_model_is_called_as_the_graph_does(settings: Settings) -> None:
    assert (await received(settings, instructions="Be brief.")).options == {}


async def test_instructions_come_after_the_graphs_own_and_only_for_their_run(settings: Settings) -> None:
    model = RuleModel(answer=rule)

    async def agent(state: Conversation) -> dict[str, Any]:
        return {"messages": [await model.ainvoke([SystemMessage("You are a cook."), *state["messages"]])]}

    graph = StateGraph(Conversation).add_node("agent", agent).add_edge(START, "agent")
    async with serving(settings, {"graph": graph}) as service:
        first = await service.openai.responses.create(input="hello", instructions="Be brief.")
        await service.openai.responses.create(input="again", previous_response_id=first.id)

    systems = [[m.text for m in one.messages if isinstance(m, SystemMessage)] for one in model.calls]
    assert systems == [["You are a cook.\n\nBe brief."], ["You are a cook."]]


async def test_the_clients_tools_are_bound_beside_the_graphs_own(settings: Settings) -> None:
    assert (await received(settings, add, tools=[WEATHER])).tools == ["add", "get_weather"]
    assert (await received(settings, tools=[WEATHER])).tools == ["get_weather"]


async def test_a_tool_that_the_graph_has_itself_is_not_the_clients(settings: Settings) -> None:
    async with serving(settings, {"graph": calling(RuleModel(answer=rule), add)}) as service:
        response = await service.openai.responses.create(input="add", tools=[function("add")])  # type: ignore[list-item]

    assert [item.type for item in response.output] == ["message", "mcp_call", "message"]


@pytest.mark.parametrize(
    ("choice", "option"),
    [("auto", None), ("required", "any"), ({"type": "function", "name": "get_weather"}, "get_weather"), ("none", None)],
)
async def test_the_choice_of_tools_reaches_the_model(settings: Settings, choice: Any, option: str | None) -> None:
    reached = await received(settings, add, tools=[WEATHER], tool_choice=choice)

    assert reached.options.get("tool_choice") == option
    assert reached.tools == ([] if choice == "none" else ["add", "get_weather"])


async def test_a_tool_that_must_be_called_is_called_once(settings: Settings) -> None:
    model = RuleModel(answer=rule)
    async with serving(settings, {"graph": calling(model, add)}) as service:
        await service.openai.responses.create(input="add", tool_choice="required")

    assert [one.options.get("tool_choice") for one in model.calls] == ["any", None]


async def test_a_model_without_tools_fails_a_request_that_has_some(settings: Settings) -> None:
    class Plain(RuleModel):
        def bind_tools(self, tools: Any, **options: Any) -> Any:
            raise NotImplementedError

    async with serving(settings, {"graph": calling(Plain(answer=rule))}) as service:
        response = await service.openai.responses.create(input="hello", tools=[WEATHER])  # type: ignore[list-item]

    assert response.error is not None
    assert (response.error.code, response.error.message) == (
        "tools_not_supported",
        "The model of this agent cannot be given tools.",
    )


def answer(call_id: str, output: str) -> Any:
    return {"type": "function_call_output", "call_id": call_id, "output": output}


def in_subgraph(model: RuleModel) -> Any:
    graph = StateGraph(Conversation).add_node("inner", calling(model, add).compile())
    return graph.add_edge(START, "inner")


@pytest.mark.parametrize("build", [calling, in_subgraph])
@pytest.mark.parametrize("how", ["previous_response_id", "conversation", "whole history"])
async def test_a_call_for_the_client_ends_the_run_and_its_answer_continues_it(
    settings: Settings, how: str, build: Any
) -> None:
    model = RuleModel(answer=rule)
    async with serving(settings, {"graph": build(model)}) as service:
        create = service.openai.responses.create
        question: Any = {"role": "user", "content": "The weather?"}
        where: dict[str, Any] = {"conversation": "conv_1"} if how == "conversation" else {}
        first = await create(input=[question], tools=[WEATHER], **where)  # type: ignore[list-item]
        assert [item.type for item in first.output] == ["message", "function_call"]
        called = first.output[-1]
        assert (first.status, called.status, called.arguments) == ("completed", "completed", '{"city":"Rome"}')

        given: Any = [answer("call_weather", "sunny")]
        if how == "previous_response_id":
            where = {"previous_response_id": first.id}
        elif how == "whole history":
            given = [question, *(item.model_dump(exclude_none=True) for item in first.output), *given]
        second = await create(input=given, tools=[WEATHER], **where)  # type: ignore[list-item]

    assert (second.status, second.output_text) == ("completed", "I was told sunny."), second.error
    kinds = [type(message).__name__ for message in model.calls[-1].messages]
    assert kinds in (["HumanMessage", "AIMessage", "ToolMessage"],)


async def test_calls_of_the_server_beside_one_for_the_client_are_told_to_the_model_as_not_done(
    settings: Settings,
) -> None:
    model = RuleModel(answer=rule)
    async with serving(settings, {"graph": calling(model, add)}) as service:
        create = service.openai.responses.create
        first = await create(input="add weather", tools=[WEATHER])  # type: ignore[list-item]
        items: Any = first.output
        assert [(item.type, item.status) for item in items] == [
            ("message", "completed"), ("mcp_call", "incomplete"), ("function_call", "completed")
        ]  # fmt: skip
        second = await create(input=[answer("call_weather", "sunny")], previous_response_id=first.id)

    assert second.output_text.startswith("I was told sunny, This call was not carried out.")


async def test_a_question_instead_of_the_answer_goes_on_too(settings: Settings) -> None:
    async with serving(settings, {"graph": calling(RuleModel(answer=rule))}) as service:
        create = service.openai.responses.create
        first = await create(input="weather", tools=[WEATHER])  # type: ignore[list-item]
        second = await create(input="Never mind.", previous_response_id=first.id)

    assert second.output_text == "You said Never mind.."


async def test_an_answer_to_no_call_fails_with_a_reason(settings: Settings) -> None:
    async with serving(settings, {"graph": calling(RuleModel(answer=rule))}) as service:
        response = await service.openai.responses.create(input=[answer("call_x", "sunny")])

    assert response.error is not None
    assert response.error.message == "No tool call found for function call output with call_id call_x."
