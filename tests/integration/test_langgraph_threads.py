"""Conversations with a graph: what it remembers, of whom, and from where it goes on."""

from __future__ import annotations

import asyncio
import operator
import random
from collections.abc import AsyncGenerator, Sequence
from typing import Annotated, Any, TypedDict

import pytest
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage
from langgraph.graph import START, StateGraph

from outlast.shared.connections import Database
from outlast.shared.domain.errors import LeaseLost
from outlast.shared.domain.runs import Lease
from outlast.shared.settings import Settings
from outlast.worker.agents.langgraph.saver import FencedSaver
from tests.integration.test_takeover import take_first_attempts_over
from tests.support.graphs import Conversation, RuleModel, call, calling
from tests.support.runs import claimed_one, submitted
from tests.support.service import Service, serving


def recall(messages: Sequence[BaseMessage], options: dict[str, Any]) -> AIMessage:
    """Says every question of the conversation, and how many answers it has seen."""
    asked = [message.text for message in messages if isinstance(message, HumanMessage)]
    answered = sum(isinstance(message, AIMessage) for message in messages)
    if asked[-1] == "call":
        return AIMessage("", tool_calls=[call("missing", "call_1")])
    return AIMessage(f"{'/'.join(asked)} ({answered})")


async def failing(state: Conversation) -> dict[str, Any]:
    if state["messages"][-1].text == "fail":
        raise RuntimeError("as asked")
    return {}


def remembering() -> Any:
    model = RuleModel(answer=recall)

    async def agent(state: Conversation) -> dict[str, Any]:
        return {"messages": [await model.ainvoke(state["messages"])]}

    graph = StateGraph(Conversation).add_node("failing", failing).add_node("agent", agent)
    return graph.add_edge(START, "failing").add_edge("failing", "agent")


@pytest.fixture
async def service(settings: Settings) -> AsyncGenerator[Service]:
    async with serving(settings, {"graph": remembering(), "calling": calling(RuleModel(answer=recall))}) as running:
        yield running


async def say(service: Service, text: str, **where: Any) -> Any:
    return await service.openai.responses.create(input=text, **where)


@pytest.mark.parametrize(
    "where",
    [
        {"conversation": "c1"},
        {"extra_body": {"custom_inputs": {"thread_id": "c1"}}},
        {"extra_body": {"context": {"conversation_id": "c1"}}},
    ],
)
async def test_a_conversation_is_remembered_however_it_is_named(service: Service, where: dict[str, Any]) -> None:
    for question, answer in [("a", "a (0)"), ("b", "a/b (1)"), ("c", "a/b/c (2)")]:
        response = await say(service, question, **where)
        assert (response.output_text, response.conversation.id) == (answer, "c1")

    assert (await say(service, "a", conversation="another")).output_text == "a (0)"


async def test_a_response_is_continued_where_it_ended_and_an_earlier_one_is_a_fork(service: Service) -> None:
    a = await say(service, "a")
    ab = await say(service, "b", previous_response_id=a.id)
    ac = await say(service, "c", previous_response_id=a.id)
    assert (ab.output_text, ac.output_text) == ("a/b (1)", "a/c (1)")

    assert (await say(service, "d", previous_response_id=ab.id)).output_text == "a/b/d (2)"
    assert (await say(service, "e", previous_response_id=ac.id)).output_text == "a/c/e (2)"
    assert a.conversation.id == ab.conversation.id == ac.conversation.id


async def test_a_history_that_is_sent_again_is_not_doubled(service: Service) -> None:
    history: list[Any] = []
    for number, question in enumerate("abc"):
        history.append({"role": "user", "content": question})
        response = await service.openai.responses.create(input=history, conversation="c1")
        assert response.output_text == f"{'/'.join('abc'[: number + 1])} ({number})"
        history.append({"role": "assistant", "content": response.output_text})


async def test_without_a_conversation_the_history_is_what_was_sent(service: Service) -> None:
    first = await say(service, "a")
    echoed: Any = [
        {"role": "user", "content": "a"},
        *(item.model_dump(exclude_none=True) for item in first.output),
        {"role": "user", "content": "b"},
    ]
    second = await service.openai.responses.create(input=echoed)

    assert second.output_text == "a/b (1)"
    assert second.conversation != first.conversation
    again = await service.openai.responses.create(input=echoed, previous_response_id=first.id)
    assert again.output_text == "a/b (1)"


async def test_a_graph_that_keeps_its_messages_as_dicts_is_a_conversation_too(settings: Settings) -> None:
    class Plain(TypedDict):
        messages: Annotated[list[Any], operator.add]

    async def count(state: Plain) -> dict[str, Any]:
        return {"messages": [{"role": "assistant", "content": f"{len(state['messages'])} messages"}]}

    graph = StateGraph(Plain).add_node("count", count).add_edge(START, "count")
    async with serving(settings, {"graph": graph}) as service:
        first = await say(service, "a", conversation="c1")
        second = await say(service, "b", conversation="c1")

    assert (first.output_text, second.output_text) == ("1 messages", "3 messages")


async def test_a_conversation_goes_on_after_a_run_that_failed(service: Service) -> None:
    await say(service, "a", conversation="c1")
    failed = await say(service, "fail", conversation="c1")
    assert failed.status == "failed"

    assert (await say(service, "b", conversation="c1")).output_text == "a/fail/b (1)"


async def test_a_call_that_nothing_answered_does_not_spoil_the_conversation(service: Service) -> None:
    await say(service, "call", conversation="c1", model="calling")

    assert (await say(service, "b", conversation="c1", model="calling")).output_text == "call/b (1)"


async def test_many_conversations_at_once_stay_apart(settings: Settings) -> None:
    """Runs of one conversation wait for each other; the answers show every message once, in order."""

    async def converse(service: Service, name: str) -> None:
        asked: list[str] = []
        for turn in range(5):
            asked.append(f"{name}.{turn}")
            response = await random.choice(service.replicas).openai.responses.create(
                input=asked[-1], conversation=name, model="graph"
            )
            assert response.output_text == f"{'/'.join(asked)} ({turn})"

    async with serving(settings, {"graph": remembering()}, replicas=2, workers=2) as service:
        await asyncio.gather(*(converse(service, f"c{number}") for number in range(CONVERSATIONS)))


CONVERSATIONS = 16


async def test_turns_that_are_posted_together_happen_one_after_the_other(service: Service) -> None:
    texts = [str(number) for number in range(6)]
    responses = await asyncio.gather(*(say(service, text, conversation="c1") for text in texts))

    turns = sorted((response.output_text for response in responses), key=len)
    for number, turn in enumerate(turns):
        asked, answered = turn.split(" ")
        assert answered == f"({number})"
        assert asked == turns[-1].split(" ")[0][: len(asked)], "a turn did not see the ones before it"


async def test_an_attempt_that_lost_its_run_writes_no_checkpoint(database: Database) -> None:
    await submitted(database)
    run = await claimed_one(database)
    lease = Lease(run.run_id, run.attempt)
    told: list[str] = []
    saver = FencedSaver(database, lease, lambda: told.append("lost"))
    config: Any = {"configurable": {"thread_id": "t", "checkpoint_ns": ""}}
    checkpoint: Any = {
        "v": 4, "id": "1f000000-0000-6000-8000-000000000000", "ts": "", "channel_values": {"messages": ["a"]},
        "channel_versions": {"messages": "1"}, "versions_seen": {}, "updated_channels": None,
    }  # fmt: skip
    stored = await saver.aput(config, checkpoint, {}, {"messages": "1"})
    await take_first_attempts_over(database)

    with pytest.raises(LeaseLost):
        await saver.aput(stored, checkpoint | {"id": "1f000000-0000-6000-8000-000000000001"}, {}, {})
    with pytest.raises(LeaseLost):
        await saver.aput_writes(stored, [("messages", "b")], "task")

    found = await saver.aget_tuple(config)
    assert found is not None
    assert (found.checkpoint["id"], found.pending_writes) == (checkpoint["id"], [])
    assert told == ["lost", "lost"]
