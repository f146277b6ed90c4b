"""Histories that clients send again to a conversation whose state has forgotten some of it."""

from __future__ import annotations

from typing import Any

import pytest
from langchain_core.messages import AIMessage, HumanMessage, RemoveMessage, SystemMessage
from langgraph.graph import START, StateGraph

from outlast.shared.settings import Settings
from tests.support.graphs import Conversation
from tests.support.service import serving


def answer(state: Conversation) -> dict[str, Any]:
    return {"messages": [AIMessage("|".join(m.text for m in state["messages"] if isinstance(m, HumanMessage)))]}


def trim(state: Conversation) -> dict[str, Any]:
    return {"messages": [RemoveMessage(id=str(m.id)) for m in state["messages"][:-2]]}


def summarise(state: Conversation) -> dict[str, Any]:
    removed = [RemoveMessage(id=str(m.id)) for m in state["messages"]]
    return {"messages": [*removed, SystemMessage("What was said before.", id="summary")]}


@pytest.mark.parametrize(
    ("forget", "seen"), [(trim, ["q1", "q1|q2", "q2|q3", "q3|q4"]), (summarise, ["q1", "q2", "q3", "q4"])]
)
async def test_a_whole_history_adds_the_new_question_only(settings: Settings, forget: Any, seen: list[str]) -> None:
    graph = StateGraph(Conversation).add_node("answer", answer).add_node("forget", forget)
    graph.add_edge(START, "answer").add_edge("answer", "forget")
    history: list[Any] = []
    answers: list[str] = []
    async with serving(settings, {"graph": graph}) as service:
        for turn in range(1, len(seen) + 1):
            history.append({"role": "user", "content": f"q{turn}"})
            response = await service.openai.responses.create(input=history, conversation="ui")
            answers.append(response.output[0].content[0].text)  # type: ignore[union-attr]
            history.append({"role": "assistant", "content": answers[-1]})

    assert answers == seen
