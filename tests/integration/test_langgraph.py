"""Graphs as agents: what their nodes, models and tools do, as a client of the API sees it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

from langchain.agents import create_agent
from langchain.agents.structured_output import ToolStrategy
from langchain_core.messages import AIMessage, BaseMessage
from langgraph.graph import END, START, StateGraph
from pydantic import BaseModel

from outlast.shared.settings import Settings
from tests.support.adder import add, ask, rule, summary
from tests.support.graphs import Conversation, RuleModel, call, calling
from tests.support.service import serving

SECRET = "postgresql://owner:hunter2@db/prod"


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
