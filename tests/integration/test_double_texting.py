"""What becomes of a run whose conversation has another one that has not ended."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from typing import Any

import httpx
import pytest
from langgraph.graph import END, START, MessagesState, StateGraph

from outlast.shared.domain.runs import MultitaskStrategy
from outlast.shared.settings import Settings
from tests.support.service import Service, gated_by, serving
from tests.support.waiting import until


@pytest.fixture
def gate() -> asyncio.Event:
    return asyncio.Event()


@pytest.fixture
async def service(settings: Settings, gate: asyncio.Event) -> AsyncGenerator[Service]:
    async with serving(settings, {"test": gated_by(gate)}) as started:
        yield started


@pytest.fixture
async def http(service: Service) -> AsyncGenerator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=service.url, timeout=30) as client:
        yield client


async def post(http: httpx.AsyncClient, text: str, **body: Any) -> httpx.Response:
    return await http.post("/responses", json={"input": text, "conversation": "c", "background": True, **body})


async def begun(http: httpx.AsyncClient, text: str = "first") -> str:
    run = (await post(http, text)).json()["id"]

    async def runs() -> bool:
        return (await http.get(f"/responses/{run}")).json()["status"] == "in_progress"

    await until(runs)
    return run


async def ends(http: httpx.AsyncClient, *runs: str) -> list[str]:
    return [(await http.get(f"/responses/{run}?wait=20")).json()["status"] for run in runs]


async def test_a_second_run_waits_unless_something_else_is_asked_for(
    http: httpx.AsyncClient, gate: asyncio.Event
) -> None:
    first = await begun(http)
    second = (await post(http, "second", multitask_strategy="enqueue")).json()["id"]
    gate.set()
    assert await ends(http, first, second) == ["completed", "completed"]


@pytest.mark.parametrize("waits", [False, True])
async def test_a_second_run_is_refused(http: httpx.AsyncClient, gate: asyncio.Event, waits: bool) -> None:
    first = (await post(http, "first")).json()["id"] if waits else await begun(http)
    answer = await post(http, "second", multitask_strategy="reject")
    assert (answer.status_code, answer.headers["x-should-retry"]) == (422, "false")
    assert answer.json()["error"]["code"] == "thread_busy"
    gate.set()
    assert await ends(http, first) == ["completed"]
    assert (await post(http, "third", multitask_strategy="reject")).status_code == 200


async def test_of_two_at_once_one_is_refused(http: httpx.AsyncClient, gate: asyncio.Event) -> None:
    answers = await asyncio.gather(*(post(http, f"{n}", multitask_strategy="reject") for n in range(8)))
    assert sorted(answer.status_code for answer in answers) == [200] + [422] * 7
    gate.set()


async def test_a_second_run_interrupts_all_that_came_before(http: httpx.AsyncClient, gate: asyncio.Event) -> None:
    first = await begun(http)
    second = (await post(http, "second")).json()["id"]
    third = (await post(http, "third", multitask_strategy="interrupt")).json()["id"]
    assert await ends(http, first, second) == ["cancelled", "cancelled"]
    gate.set()
    assert await ends(http, third) == ["completed"]


async def test_a_repeated_request_does_not_interrupt_itself(http: httpx.AsyncClient, gate: asyncio.Event) -> None:
    body = {"input": "x", "conversation": "c", "background": True, "multitask_strategy": "interrupt"}
    answers = [await http.post("/responses", json=body, headers={"Idempotency-Key": "k"}) for _ in range(2)]
    first, again = (answer.json()["id"] for answer in answers)
    gate.set()
    assert first == again and await ends(http, first) == ["completed"]


async def test_an_agent_may_have_a_strategy_of_its_own(settings: Settings, gate: asyncio.Event) -> None:
    by_agent = settings.model_copy(update={"multitask_strategy": {"picky": MultitaskStrategy.REJECT}})
    async with (
        serving(by_agent, {"test": gated_by(gate), "picky": gated_by(gate)}) as service,
        httpx.AsyncClient(base_url=service.url) as http,
    ):
        await begun(http)
        assert (await post(http, "second")).status_code == 200
        assert (await post(http, "third", model="picky")).status_code == 422
        assert (await post(http, "fourth", multitask_strategy="sometimes")).status_code == 400
        gate.set()


async def test_what_an_interrupted_run_has_reached_stays_in_the_thread(settings: Settings) -> None:
    reached, gate = asyncio.Event(), asyncio.Event()

    async def first(state: MessagesState) -> Any:
        return {"messages": [("ai", f"noted {state['messages'][-1].content}")]}

    async def second(state: MessagesState) -> Any:
        reached.set()
        await gate.wait()
        return {"messages": [("ai", f"{len(state['messages'])} messages")]}

    graph = StateGraph(MessagesState).add_node(first).add_node(second)
    graph.add_edge(START, "first").add_edge("first", "second").add_edge("second", END)
    async with (
        serving(settings, {"test": graph.compile()}) as service,
        httpx.AsyncClient(base_url=service.url) as http,
    ):
        one = (await post(http, "one")).json()["id"]
        await reached.wait()
        two = (await post(http, "two", multitask_strategy="interrupt")).json()["id"]
        assert await ends(http, one) == ["cancelled"]
        gate.set()
        assert await ends(http, two) == ["completed"]
        answer = (await http.get(f"/responses/{two}")).json()
    said = [item["content"][0]["text"] for item in answer["output"]]
    assert said == ["noted two", "4 messages"]
