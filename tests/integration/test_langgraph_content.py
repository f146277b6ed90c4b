"""Graphs as agents: what is part of the answer, what is not, and what the graph is given."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, SystemMessage
from langchain_core.runnables import RunnableConfig
from langchain_core.tools import tool
from langgraph.graph import START, StateGraph
from pydantic import BaseModel

from outlast.agent import Context
from outlast.shared.settings import Settings
from tests.support.adder import ask, fail, rule, summary
from tests.support.graphs import Conversation, RuleModel, call, calling, tool_results

SECRET = "postgresql://owner:hunter2@db/prod"


async def test_a_failing_tool_is_shown_as_failed_and_the_run_goes_on(settings: Settings) -> None:
    graph = calling(RuleModel(answer=rule), fail, on_tool_errors=True)
    response = await ask(settings, graph, input="fail")

    assert response.status == "completed"
    assert response.output[1].status == "failed"
    assert "no such thing" in str(response.output[1].error)


async def test_reasoning_and_parts_of_content_become_their_items(settings: Settings) -> None:
    parts: Any = [
        {"type": "reasoning", "reasoning": "Let me think."},
        {"type": "text", "text": "It is "},
        {"type": "text", "text": "so."},
    ]
    graph = calling(RuleModel(answer=lambda _m, _o: AIMessage(parts)))

    assert summary(await ask(settings, graph)) == ["reasoning: Let me think.", "It is so."]


@pytest.mark.parametrize("form", [{}, {"text": {"format": {"type": "json_object"}}}])
async def test_a_models_refusal_is_its_answer(settings: Settings, form: dict[str, Any]) -> None:
    refused: tuple[AIMessage, ...] = (
        AIMessage([{"type": "refusal", "refusal": "I cannot."}]),  # OpenAI's Responses API, through LangChain
        AIMessage("", additional_kwargs={"refusal": "I cannot."}),  # its chat completions
    )
    for message in refused:
        graph = calling(RuleModel(answer=lambda _m, _o, said=message: said, streams=False))
        response = await ask(settings, graph, **form)
        assert response.status == "completed"
        [[part]] = [item.content for item in response.output]
        assert (part.type, part.refusal) == ("refusal", "I cannot.")


async def test_what_is_not_the_answer_is_not_shown(settings: Settings) -> None:
    """Models for data of a given form, models kept from the stream, and those that a tool calls."""
    model = RuleModel(answer=rule)

    @tool
    async def research() -> str:
        """Ask another model."""
        return (await model.ainvoke([HumanMessage("secretly")])).text

    def ask_once(messages: Sequence[BaseMessage], options: dict[str, Any]) -> AIMessage:
        return AIMessage("Done.") if tool_results(messages) else AIMessage("", tool_calls=[call("research", "r")])

    class Route(BaseModel):
        where: str = "nowhere"

    async def route(state: Conversation) -> dict[str, Any]:
        await model.ainvoke(state["messages"], {"tags": ["nostream"]})
        await model.with_structured_output(Route).ainvoke(state["messages"])
        return {}

    graph = (
        StateGraph(Conversation)
        .add_node("route", route)
        .add_node("agent", calling(RuleModel(answer=ask_once), research).compile())
    )
    graph.add_edge(START, "route").add_edge("route", "agent")

    assert summary(await ask(settings, graph)) == ["research({}) -> You said secretly.", "Done."]


@pytest.mark.parametrize("error", [RuntimeError(f"cannot reach {SECRET}"), KeyError(SECRET)])
async def test_a_graphs_exception_fails_the_run_without_its_words(settings: Settings, error: Exception) -> None:
    async def broken(state: Conversation) -> dict[str, Any]:
        raise error

    graph = StateGraph(Conversation).add_node("broken", broken).add_edge(START, "broken")
    response = await ask(settings, graph)

    assert response.status == "failed"
    assert response.error.message == f"The agent failed with {type(error).__name__}."
    assert "hunter2" not in response.model_dump_json()


async def test_pictures_and_files_reach_the_model(settings: Settings) -> None:
    model = RuleModel(answer=rule)
    await ask(
        settings,
        calling(model),
        input=[
            {
                "role": "user",
                "content": [
                    {"type": "input_text", "text": "What is this?"},
                    {"type": "input_image", "image_url": "data:image/png;base64,AAAA", "detail": "low"},
                    {"type": "input_file", "filename": "a.pdf", "file_data": "data:application/pdf;base64,BBBB"},
                ],
            }
        ],
    )

    text, image, file = model.calls[0].messages[0].content
    assert text == {"type": "text", "text": "What is this?"}
    assert image == {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA", "detail": "low"}}
    assert (file["type"], file["base64"], file["mime_type"]) == ("file", "BBBB", "application/pdf")  # type: ignore[index]


async def test_a_graph_sees_who_asks_and_custom_values_go_in_and_out(settings: Settings) -> None:
    class State(Conversation):
        custom_inputs: dict[str, Any]
        custom_outputs: dict[str, Any]

    seen: dict[str, Any] = {}

    async def node(state: State, config: RunnableConfig) -> dict[str, Any]:
        seen.update(config.get("configurable", {}))
        return {"custom_outputs": {"doubled": state["custom_inputs"]["number"] * 2}}

    graph = StateGraph(State).add_node("node", node).add_edge(START, "node")
    response = await ask(settings, graph, extra_body={"custom_inputs": {"number": 21}})

    assert response.custom_outputs == {"doubled": 42}
    context: Context = seen["outlast_context"]
    assert context.response_id == response.id
    assert seen["user_id"] == context.principal


async def test_a_message_of_a_system_stays_where_it_is(settings: Settings) -> None:
    model = RuleModel(answer=rule)
    await ask(
        settings, calling(model), input=[{"role": "system", "content": "Sing."}, {"role": "user", "content": "x"}]
    )

    assert [type(message) for message in model.calls[0].messages] == [SystemMessage, HumanMessage]
