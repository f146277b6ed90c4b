"""Graphs without messages, and functions as graphs: how they are asked and what of them is the answer."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, TypedDict

import pytest
from langchain_core.messages import AIMessage, BaseMessage
from langgraph.func import entrypoint, task
from langgraph.graph import START, StateGraph, add_messages
from pydantic import BaseModel

from outlast.shared.connections import Database
from outlast.shared.domain.runs import Durability
from outlast.shared.settings import Settings
from tests.support.adder import ask, summary
from tests.support.graphs import RuleModel, last_human
from tests.support.log import check_log, stored_lines
from tests.support.runs import take_first_attempts_over
from tests.support.service import serving
from tests.support.waiting import until


class Question(TypedDict):
    question: str
    answer: Any


class Topic(BaseModel):
    subject: str = ""
    essay: dict[str, Any] = {}


def echo(messages: Sequence[BaseMessage], options: dict[str, Any]) -> AIMessage:
    return AIMessage(f"About {last_human(messages)}.")


def asking(node: Any, state: Any = Question) -> Any:
    return StateGraph(state).add_node("node", node).add_edge(START, "node")


async def talk(settings: Settings, graph: object, *inputs: Any) -> list[list[str]]:
    """The answers of a conversation."""
    async with serving(settings, {"graph": graph}) as service:
        return [summary(await service.openai.responses.create(input=given, conversation="one")) for given in inputs]


async def test_a_field_with_a_usual_name_takes_the_question_and_another_holds_the_answer(settings: Settings) -> None:
    graph = asking(lambda state: {"answer": f"about {state['question']}"})

    assert await talk(settings, graph, "a", "b") == [["about a"], ["about b"]]


async def test_an_answer_that_a_model_has_said_is_said_once(settings: Settings) -> None:
    model = RuleModel(answer=echo)

    async def node(state: Question) -> dict[str, Any]:
        return {"answer": (await model.ainvoke(state["question"])).text}

    assert summary(await ask(settings, asking(node))) == ["About hello."]


async def test_an_answer_that_is_no_text_is_said_as_json(settings: Settings) -> None:
    assert summary(await ask(settings, asking(lambda state: {"answer": {"score": 1}}))) == ['{"score":1}']


async def test_settings_name_the_fields_of_a_graph_with_other_names(settings: Settings) -> None:
    named = settings.model_copy(update={"graph_input": {"graph": "subject"}, "graph_output": {"graph": "essay"}})
    graph = asking(lambda state: {"essay": {"on": state.subject}}, Topic)

    assert summary(await ask(named, graph)) == ['{"on":"hello"}']


@entrypoint()
async def counting(inputs, *, previous=None):
    return f"{inputs['messages'][-1].text} after {previous}"


async def test_what_a_function_returns_is_the_answer_and_what_it_finds_next_time(settings: Settings) -> None:
    assert await talk(settings, counting, "a", "b") == [["a after None"], ["b after a after None"]]


async def test_a_function_that_keeps_something_else_says_what_it_returns(settings: Settings) -> None:
    @entrypoint()
    async def summing(messages, *, previous: int | None = None):
        total = (previous or 0) + int(messages[-1].text)
        return entrypoint.final(value={"total": total}, save=total)

    assert await talk(settings, summing, "1", "2") == [['{"total":1}'], ['{"total":3}']]


model = RuleModel(answer=echo)


@task
async def think(text: str) -> AIMessage:
    return await model.ainvoke(text)


@entrypoint()
async def remembering(inputs, *, previous=None):
    messages: Any = add_messages((previous or {"messages": []})["messages"], inputs["messages"])
    said = await think(f"{len(messages)} messages")
    return entrypoint.final(value={"messages": [said]}, save={"messages": [*messages, said]})


async def test_messages_of_a_function_are_said_once_and_remembered(settings: Settings) -> None:
    answers = await talk(settings, remembering, "a", "b")

    assert answers == [["About 1 messages."], ["About 3 messages."]]


@pytest.mark.parametrize("function", [counting, remembering])
async def test_a_function_is_given_what_is_new_of_a_whole_history(settings: Settings, function: Any) -> None:
    async with serving(settings, {"graph": function}) as service:
        history: list[Any] = []
        for text in ("a", "b", "c"):
            history.append({"role": "user", "content": text})
            response = await service.openai.responses.create(input=history, conversation="ui")
            history.append({"role": "assistant", "content": response.output_text})

    assert response.output_text in ("c after b after a after None", "About 5 messages.")


@pytest.mark.parametrize("durability", list(Durability))
async def test_a_lost_run_says_its_answer_once(settings: Settings, database: Database, durability: Durability) -> None:
    gate = asyncio.Event()
    begun: list[str] = []

    async def wait(state: Question) -> dict[str, Any]:
        begun.append(state["question"])
        await gate.wait()
        return {"answer": f"about {state['question']}"}

    @entrypoint()
    async def waiting(topic: str, *, previous: str | None = None) -> str:
        begun.append(topic)
        await gate.wait()
        return f"on {topic} after {previous}"

    async def have_begun(times: int) -> None:
        async def seen() -> bool:
            return len(begun) == times

        await until(seen)

    keeping = settings.model_copy(update={"durability": {"*": durability}})
    async with serving(keeping, {"graph": asking(wait), "function": waiting}) as service:
        runs = [
            (await service.openai.responses.create(input="a", model=model, background=True)).id
            for model in ("graph", "function")
        ]
        await have_begun(2)
        await take_first_attempts_over(database)
        await have_begun(4)
        gate.set()

        async def all_ended() -> Any:
            found = [await service.openai.responses.retrieve(run) for run in runs]
            return found if all(response.status == "completed" for response in found) else None

        responses: Any = await until(all_ended)
        for run in runs:
            check_log(await stored_lines(database, run))

    assert [summary(response) for response in responses] == [["about a"], ["on a after None"]]
