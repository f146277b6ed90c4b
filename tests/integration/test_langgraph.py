"""Graphs as agents: what their nodes, models and tools do, as a client of the API sees it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest
from langchain.agents import create_agent
from langchain.agents.structured_output import ToolStrategy
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, SystemMessage
from langchain_core.runnables import RunnableConfig
from langchain_core.tools import tool
from langgraph.graph import END, START, StateGraph
from pydantic import BaseModel

from outlast.agent import Context
from outlast.shared.settings import Settings
from tests.support.graphs import Conversation, RuleModel, call, calling, last_human, tool_results
from tests.support.service import serving

SECRET = "postgresql://owner:hunter2@db/prod"


@tool
def add(a: int, b: int) -> str:
    """Add two numbers."""
    return str(a + b)


@tool
def fail() -> str:
    """Fail."""
    raise ValueError("no such thing")


def rule(messages: Sequence[BaseMessage], options: dict[str, Any]) -> AIMessage:
    """Adds when asked to, asks the client for the weather, and says what it was told otherwise."""
    if results := tool_results(messages):
        return AIMessage(f"I was told {', '.join(results)}.")
    asked = last_human(messages)
    calls = [call("add", "call_add", a=2, b=3)] if "add" in asked else []
    calls += [call("fail", "call_fail")] if "fail" in asked else []
    calls += [call("get_weather", "call_weather", city="Rome")] if "weather" in asked else []
    if calls:
        return AIMessage("Let me see.", tool_calls=calls, usage_metadata=USAGE)
    return AIMessage(f"You said {asked}.", usage_metadata=USAGE)


USAGE: Any = {
    "input_tokens": 5, "output_tokens": 7, "total_tokens": 12,
    "input_token_details": {"cache_read": 2}, "output_token_details": {"reasoning": 3},
}  # fmt: skip


def summary(response: Any) -> list[str]:
    """The items of a response, one line each."""
    lines: list[str] = []
    for item in response.output:
        match item.type:
            case "message":
                lines.append(item.content[0].text)
            case "mcp_call":
                lines.append(f"{item.name}({item.arguments}) -> {item.output or item.error}")
            case "reasoning":
                lines.append(f"reasoning: {item.summary[0].text}")
            case _:
                lines.append(f"{item.type} {item.name}({item.arguments}) {item.call_id}")
    return lines


async def ask(settings: Settings, graph: object, **request: Any) -> Any:
    given: dict[str, Any] = {"input": "hello"} | request
    async with serving(settings, {"graph": graph}) as service:
        return await service.openai.responses.create(**given)


async def test_a_models_words_its_tool_calls_and_their_results_are_the_items(settings: Settings) -> None:
    async with (
        serving(settings, {"graph": calling(RuleModel(answer=rule), add)}) as service,
        service.openai.responses.stream(input="please add", model="graph") as stream,
    ):
        events = [event async for event in stream]
        response = await stream.get_final_response()

    assert summary(response) == ["Let me see.", 'add({"a":2,"b":3}) -> 5', "I was told 5."]
    assert [event.delta for event in events if event.type == "response.output_text.delta"] == [
        "Let", " me", " see.", "I", " was", " told", " 5."
    ]  # fmt: skip
    usage: Any = response.usage
    assert (usage.input_tokens, usage.output_tokens) == (5, 7)
    assert usage.input_tokens_details.cached_tokens == 2
    assert usage.output_tokens_details.reasoning_tokens == 3


async def test_items_say_which_step_they_come_from(settings: Settings) -> None:
    async with serving(settings, {"graph": calling(RuleModel(answer=rule), add)}) as service:
        stream = await service.openai.responses.create(input="please add", stream=True)
        done = [event async for event in stream if event.type == "response.output_item.done"]

    paths = [[(place["node"], place["step"]) for place in event.path] for event in done]  # type: ignore[union-attr]
    assert paths == [[("agent", 1)], [("tools", 2)], [("agent", 3)]]


def compiled(model: RuleModel) -> Any:
    return calling(model, add).compile()


async def test_factories_of_every_kind_make_an_agent(settings: Settings) -> None:
    def plain() -> object:
        return calling(RuleModel(answer=rule))

    async def awaited(config: dict[str, Any]) -> object:
        return compiled(RuleModel(answer=rule))

    closed: list[str] = []

    @asynccontextmanager
    async def context():
        yield compiled(RuleModel(answer=rule))
        closed.append("yes")

    agents = {"compiled": compiled(RuleModel(answer=rule)), "plain": plain, "awaited": awaited, "context": context}
    async with serving(settings, agents) as service:
        for name in agents:
            response = await service.openai.responses.create(input="hi", model=name)
            assert response.output_text == "You said hi.", name
    assert closed == ["yes"]


async def test_nodes_that_block_in_a_thread_stream_like_others(settings: Settings) -> None:
    model = RuleModel(answer=rule)

    def blocking(state: Conversation) -> dict[str, Any]:
        return {"messages": [model.invoke(state["messages"])]}

    graph = StateGraph(Conversation).add_node("blocking", blocking).add_edge(START, "blocking")
    async with serving(settings, {"graph": graph}) as service:
        stream = await service.openai.responses.create(input="hello", stream=True)
        deltas = [event.delta async for event in stream if event.type == "response.output_text.delta"]

    assert deltas == ["You", " said", " hello."]


async def test_models_that_do_not_stream_and_messages_without_a_model_are_said_whole(settings: Settings) -> None:
    model = RuleModel(answer=rule, streams=False)

    async def agent(state: Conversation) -> dict[str, Any]:
        return {"messages": [await model.ainvoke(state["messages"])]}

    async def closing(state: Conversation) -> dict[str, Any]:
        return {"messages": [("assistant", "Goodbye.")]}

    graph = StateGraph(Conversation).add_node("agent", agent).add_node("closing", closing)
    graph.add_edge(START, "agent").add_edge("agent", "closing")

    assert summary(await ask(settings, graph)) == ["You said hello.", "Goodbye."]


async def test_what_a_node_makes_a_message_of_its_own_of_is_said_once(settings: Settings) -> None:
    model = RuleModel(answer=rule)

    def collecting(state: Conversation) -> dict[str, Any]:
        return {"messages": [AIMessage("".join(chunk.text for chunk in model.stream(state["messages"])))]}

    graph = StateGraph(Conversation).add_node("collecting", collecting).add_edge(START, "collecting")

    assert summary(await ask(settings, graph)) == ["You said hello."]


async def test_what_a_model_said_before_it_failed_and_was_tried_again_is_taken_back(settings: Settings) -> None:
    class Flaky(RuleModel):
        async def _astream(self, messages: Any, stop: Any = None, run_manager: Any = None, **options: Any):
            async for number, chunk in _counted(super()._astream(messages, stop, run_manager, **options)):
                if number == 2 and len(self.calls) == 1:
                    raise ConnectionError(SECRET)
                yield chunk

    model = Flaky(answer=rule).with_retry(stop_after_attempt=2, wait_exponential_jitter=False)

    async def agent(state: Conversation) -> dict[str, Any]:
        return {"messages": [await model.ainvoke(state["messages"])]}

    graph = StateGraph(Conversation).add_node("agent", agent).add_edge(START, "agent")
    async with serving(settings, {"graph": graph}) as service:
        stream = await service.openai.responses.create(input="hello", stream=True)
        events: list[Any] = [event async for event in stream]

    done = [event.item for event in events if event.type == "response.output_item.done"]
    assert [(item.status, item.content[0].text) for item in done] == [
        ("incomplete", "You said"), ("completed", "You said hello.")
    ]  # fmt: skip
    marked = [event.outlast for event in events if hasattr(event, "outlast")]
    assert marked == [{"attempt": 1, "superseded": [done[0].id]}]
    assert summary(events[-1].response) == ["You said hello."]


async def _counted(chunks: AsyncIterator[Any]) -> AsyncIterator[tuple[int, Any]]:
    number = 0
    async for chunk in chunks:
        yield number, chunk
        number += 1


async def test_a_structured_response_is_among_the_custom_outputs(settings: Settings) -> None:
    class Sum(BaseModel):
        value: int

    def structured(messages: Sequence[BaseMessage], options: dict[str, Any]) -> AIMessage:
        return AIMessage("", tool_calls=[call("Sum", "s", value=5)])

    graph = create_agent(RuleModel(answer=structured), [], response_format=ToolStrategy(Sum))

    assert (await ask(settings, graph)).custom_outputs == {"structured_response": {"value": 5}}


async def test_branches_that_speak_at_once_are_messages_of_their_own(settings: Settings) -> None:
    turns: list[str] = []

    def branch(name: str) -> Any:
        async def speak(state: Conversation) -> dict[str, Any]:
            model = Slow(answer=lambda _m, _o: AIMessage(f"{name} one two three"))
            return {"messages": [await model.ainvoke(state["messages"])]}

        return speak

    class Slow(RuleModel):
        async def _astream(self, messages: Any, stop: Any = None, run_manager: Any = None, **options: Any):
            async for chunk in super()._astream(messages, stop, run_manager, **options):
                turns.append(chunk.text)
                await asyncio.sleep(0)
                yield chunk

    graph = StateGraph(Conversation)
    for name in ("left", "right"):
        graph.add_node(name, branch(name)).add_edge(START, name)

    assert sorted(summary(await ask(settings, graph))) == ["left one two three", "right one two three"]
    assert turns.index("right") < turns.index(" three"), "they did not speak at once"


async def test_subgraphs_speak_once(settings: Settings) -> None:
    inner = calling(RuleModel(answer=rule), add).compile()

    async def before(state: Conversation) -> dict[str, Any]:
        return {"messages": [AIMessage("Before.")]}

    graph = StateGraph(Conversation).add_node("before", before).add_node("inner", inner)
    graph.add_edge(START, "before").add_edge("before", "inner").add_edge("inner", END)

    response = await ask(settings, graph, input="please add")

    assert summary(response) == ["Before.", "Let me see.", 'add({"a":2,"b":3}) -> 5', "I was told 5."]


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
