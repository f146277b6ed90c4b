"""Graphs that wait for a person's decision: their runs fail and say where, and nothing passes a gate without one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from langchain.agents import create_agent
from langchain.agents.middleware import HumanInTheLoopMiddleware
from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.tools import tool
from langgraph.graph import START, StateGraph
from langgraph.types import interrupt

from outlast.shared.connections import Database
from outlast.shared.domain.ids import parse_response_id
from outlast.shared.settings import Settings
from outlast.shared.store import steering
from tests.support.adder import ask, summary
from tests.support.graphs import Conversation, RuleModel, call, last_human, tool_results
from tests.support.service import Service, serving
from tests.support.waiting import until


class Steps:
    """Two steps, of which the second may do what must be decided first."""

    def __init__(self) -> None:
        self.done: list[str] = []

    def graph(self, *, asks: bool = False, second: Any = None, **options: Any) -> Any:
        async def look(state: Conversation) -> dict[str, Any]:
            self.done.append("look")
            return {"messages": [AIMessage("I have looked.")]}

        async def act(state: Conversation) -> dict[str, Any]:
            if asks:
                interrupt("May I?")
            self.done.append("act")
            return {"messages": [AIMessage("Done.")]}

        graph = StateGraph(Conversation).add_node("look", look).add_node("act", second or act)
        return graph.add_edge(START, "look").add_edge("look", "act").compile(**options)


def nested(steps: Steps, **options: Any) -> Any:
    return steps.graph(second=Steps().graph(**options))


def called(steps: Steps, **options: Any) -> Any:
    inner = Steps().graph(**options)

    async def call_inner(state: Conversation) -> dict[str, Any]:
        return {"messages": (await inner.ainvoke(state))["messages"]}

    return steps.graph(second=call_inner)


@pytest.mark.parametrize(
    ("options", "where"),
    [
        ({"asks": True}, "in the node 'act'"),
        ({"interrupt_before": ["act"]}, "before the node 'act'"),
        ({"interrupt_after": ["look"]}, "after the node 'look'"),
        ({"interrupt_before": "*"}, "before the node 'look'"),
    ],
)
@pytest.mark.parametrize("build", [Steps.graph, nested, called])
async def test_a_run_that_waits_for_a_decision_fails_and_says_where(
    settings: Settings, build: Any, options: dict[str, Any], where: str
) -> None:
    steps = Steps()
    response = await ask(settings, build(steps, **options))

    assert (response.status, response.error.code) == ("failed", "interrupt_not_supported")
    assert f"decision {where}, and" in response.error.message
    assert "act" not in steps.done


async def failed_again(service: Service, database: Database, response_id: str) -> Any:
    """The response after an operator has had it tried again."""
    run_id = parse_response_id(response_id)
    assert run_id is not None
    await database.run(lambda c: steering.retry(c, run_id))

    async def found() -> Any:
        response: Any = await service.openai.responses.retrieve(response_id)
        return response if response.status == "failed" and response.attempt_number == 2 else None

    return await until(found)


@pytest.mark.parametrize(
    "options", [{"asks": True}, {"interrupt_before": ["act"]}, {"interrupt_after": ["look"]}, {"interrupt_before": "*"}]
)
@pytest.mark.parametrize("build", [Steps.graph, nested, called])
async def test_another_attempt_does_not_pass_the_gate(
    settings: Settings, database: Database, build: Any, options: dict[str, Any]
) -> None:
    steps = Steps()
    async with serving(settings, {"graph": build(steps, **options)}) as service:
        first = await service.openai.responses.create(input="go")
        response = await failed_again(service, database, first.id)

    assert (response.error.code, response.error.message) == (first.error.code, first.error.message)  # type: ignore[union-attr]
    assert "act" not in steps.done


async def test_a_call_that_must_be_approved_is_not_made_and_the_conversation_goes_on(settings: Settings) -> None:
    deleted: list[str] = []

    @tool
    def delete(name: str) -> str:
        """Delete a file."""
        deleted.append(name)
        return "gone"

    def rule(messages: Sequence[BaseMessage], _options: dict[str, Any]) -> AIMessage:
        asked, results = last_human(messages), tool_results(messages)
        if "delete" in asked and not results:
            return AIMessage("I will.", tool_calls=[call("delete", "d1", name="a")])
        return AIMessage(f"You said {asked}.")

    model = RuleModel(answer=rule)
    approval = HumanInTheLoopMiddleware(interrupt_on={"delete": True})
    async with serving(settings, {"graph": create_agent(model, [delete], middleware=[approval])}) as service:
        first = await service.openai.responses.create(input="delete it", conversation="c1")
        second = await service.openai.responses.create(input="never mind", conversation="c1")

    assert first.error is not None
    assert (first.status, first.error.code) == ("failed", "interrupt_not_supported")  # type: ignore[comparison-overlap]
    assert "HumanInTheLoopMiddleware.after_model" in first.error.message
    assert [(item.type, item.status) for item in first.output] == [  # type: ignore[union-attr]
        ("message", "completed"), ("mcp_call", "incomplete")
    ]  # fmt: skip
    assert (second.status, summary(second)) == ("completed", ["You said never mind."])
    assert deleted == []
    kinds = [type(message).__name__ for message in model.calls[-1].messages]
    assert kinds == ["HumanMessage", "AIMessage", "ToolMessage", "HumanMessage"]
