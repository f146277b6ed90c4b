"""What a graph finds when it runs: its context, a store, a writer, a cache and the limit of its steps."""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from typing import Annotated, Any, TypedDict

from langchain.agents import create_agent
from langchain_core.messages import AIMessage
from langchain_core.runnables import RunnableConfig
from langchain_core.tools import tool
from langgraph.cache.memory import InMemoryCache
from langgraph.config import get_store, get_stream_writer
from langgraph.graph import START, StateGraph
from langgraph.prebuilt import InjectedStore
from langgraph.runtime import Runtime
from langgraph.store.base import BaseStore
from langgraph.store.memory import InMemoryStore
from langgraph.types import CachePolicy
from structlog.testing import capture_logs

from outlast.shared.settings import Settings
from outlast.worker.agents.langgraph import memory
from tests.support.adder import ask, summary
from tests.support.graphs import Conversation, RuleModel, call, calling, tool_results
from tests.support.service import serving


@dataclass(kw_only=True)
class Mood:
    tone: str = "plain"
    repeat: int = 1


def speaking(node: Any, **schemas: Any) -> Any:
    return StateGraph(Conversation, **schemas).add_node("node", node).add_edge(START, "node")


def told(text: object) -> dict[str, Any]:
    return {"messages": [AIMessage(str(text))]}


def in_a_mood(state: Conversation, runtime: Runtime[Mood], config: RunnableConfig) -> dict[str, Any]:
    return told(f"{runtime.context.tone}/{config.get('configurable', {})['tone']} " * runtime.context.repeat)


async def test_a_context_has_its_defaults_and_what_the_request_or_the_settings_say(settings: Settings) -> None:
    named = settings.model_copy(update={"graph_context": {"set": {"tone": "set"}}})
    graph = speaking(in_a_mood, context_schema=Mood)
    async with serving(named, {"graph": graph, "set": graph}) as service:

        async def answer(model: str = "graph", **fields: Any) -> Any:
            return await service.openai.responses.create(input="hello", model=model, extra_body=fields)

        assert (await answer()).output_text == "plain/plain "
        assert (await answer("set")).output_text == "set/set "
        assert (await answer("set", context={"tone": "warm"})).output_text == "warm/warm "
        assert (await answer(custom_inputs={"tone": "a", "repeat": 2})).output_text == "a/a a/a "
        refused = await answer(custom_inputs={"repeat": "often"})

    assert (refused.status, refused.error.code) == ("failed", "invalid_context")
    assert "repeat: Input should be a valid integer" in refused.error.message
    assert "often" not in refused.error.message


async def test_tools_find_the_context_and_the_store(settings: Settings) -> None:
    @tool
    def remember(store: Annotated[BaseStore, InjectedStore()]) -> str:
        """Remember."""
        store.put(("notes", str(uuid.uuid4())), "note", {"text": "kept"})
        return f"{len(store.search(('notes',), limit=1))} note"

    def rule(messages: Any, _options: Any) -> AIMessage:
        results = tool_results(messages)
        return AIMessage(f"I have {results[0]}.") if results else AIMessage("", tool_calls=[call("remember", "c1")])

    agent = create_agent(RuleModel(answer=rule), [remember])

    assert summary(await ask(settings, agent))[-1] == "I have 1 note."


async def test_a_graph_without_a_store_shares_that_of_its_process_which_says_once_that_it_will_forget(
    settings: Settings,
) -> None:
    memory.store_of_process.cache_clear()

    async def count(state: Conversation, runtime: Runtime, config: RunnableConfig) -> dict[str, Any]:
        assert runtime.store is get_store() is config.get("configurable", {})["store"]
        assert runtime.store is not None
        found = await runtime.store.aget(("counts",), "n")
        number = (found.value["n"] if found else 0) + 1
        await runtime.store.aput(("counts",), "n", {"n": number})
        return told(number)

    with capture_logs() as logs:
        async with serving(settings, {"one": speaking(count), "other": speaking(count)}) as service:
            answers = [
                (await service.openai.responses.create(input="hello", model=model)).output_text
                for model in ("one", "other", "one")
            ]

    assert answers == ["1", "2", "3"]
    assert [entry["log_level"] for entry in logs if entry["event"] == "agent.store_in_memory"] == ["warning"]


async def test_a_graphs_own_store_is_the_one_it_finds(settings: Settings) -> None:
    own = InMemoryStore()
    own.put(("a",), "k", {"v": "mine"})

    async def read(state: Conversation, runtime: Runtime, config: RunnableConfig) -> dict[str, Any]:
        assert runtime.store is config.get("configurable", {})["store"] is own
        return told(own.get(("a",), "k").value["v"])  # type: ignore[union-attr]

    assert summary(await ask(settings, speaking(read).compile(store=own))) == ["mine"]


async def test_what_is_written_to_the_custom_stream_is_dropped_and_does_no_harm(settings: Settings) -> None:
    def node(state: Conversation, runtime: Runtime) -> dict[str, Any]:
        get_stream_writer()({"progress": 1})
        runtime.stream_writer("half")
        return told("done")

    assert summary(await ask(settings, speaking(node))) == ["done"]


async def test_a_graph_that_comes_to_no_end_fails_with_its_limit(settings: Settings) -> None:
    async def again(state: Conversation) -> dict[str, Any]:
        return {}

    endless = StateGraph(Conversation).add_node("again", again).add_edge(START, "again").add_edge("again", "again")
    graphs = {"own": endless.compile().with_config(recursion_limit=4), "set": endless.compile()}
    named = settings.model_copy(update={"recursion_limit": {"set": 3}})
    errors: list[Any] = []
    async with serving(named, graphs) as service:
        for model in graphs:
            errors.append((await service.openai.responses.create(input="hello", model=model)).error)

    assert [error.code for error in errors] == ["recursion_limit_exceeded"] * 2
    assert [error.message for error in errors] == [
        f"The graph did not come to an end within {steps} steps. OUTLAST_RECURSION_LIMIT sets how many a run may take."
        for steps in (4, 3)
    ]


async def test_values_that_json_has_no_form_for_are_told_as_what_comes_nearest(settings: Settings) -> None:
    class Values(Conversation):
        custom_outputs: dict[Any, Any]

    def node(state: Values) -> dict[str, Any]:
        return {**told("done"), "custom_outputs": {"score": float("nan"), 3: {1}}}

    graph = StateGraph(Values).add_node("node", node).add_edge(START, "node")

    assert (await ask(settings, graph)).custom_outputs == {"score": None, "3": [1]}


async def test_a_nodes_cache_serves_later_runs(settings: Settings) -> None:
    class Cached(TypedDict):
        question: str
        answer: str

    made: list[str] = []

    def slow(state: Cached) -> dict[str, Any]:
        made.append(state["question"])
        return {"answer": f"about {state['question']}"}

    policy: Any = CachePolicy(key_func=lambda state: state["question"].encode())
    graph = StateGraph(Cached).add_node("slow", slow, cache_policy=policy).add_edge(START, "slow")
    async with serving(settings, {"graph": graph.compile(cache=InMemoryCache())}) as service:
        answers = [(await service.openai.responses.create(input=question)).output_text for question in ("a", "a", "b")]

    assert answers == ["about a", "about a", "about b"]
    assert made == ["a", "b"]


async def test_models_with_the_tag_of_earlier_releases_get_nothing_of_the_request(settings: Settings) -> None:
    model = RuleModel(answer=lambda messages, options: AIMessage("hidden"), tags=["langsmith:nostream"])
    await ask(settings, calling(model), instructions="Be brief.")

    assert [message.type for message in model.calls[0].messages] == ["human"]
