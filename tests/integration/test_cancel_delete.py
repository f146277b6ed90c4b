"""Ending a run before it ends by itself, and removing it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator
from functools import partial
from typing import Any

import httpx
import openai
import pytest

from outlast.agent import AgentError, Context, Request, ToolCall, Usage
from outlast.shared.connections import Database
from outlast.shared.domain.events import Chunk
from outlast.shared.domain.ids import item_id, response_id as response_id_of
from outlast.shared.domain.operating import RunFilter
from outlast.shared.domain.runs import Lease
from outlast.shared.output import Output
from outlast.shared.settings import Settings
from outlast.shared.store import leases, operating
from outlast.shared.store.events import Append
from outlast.shared.wire import event_line
from tests.support.log import check_log, data_lines
from tests.support.runs import append, claimed_one
from tests.support.service import Service, serving
from tests.support.waiting import until


class Speaker:
    """An agent that says something and then waits until it is let go on."""

    def __init__(self) -> None:
        self.spoken = asyncio.Event()
        self.gate = asyncio.Event()
        self.ended = asyncio.Event()

    async def __call__(self, request: Request, _context: Context):
        try:
            yield "You said: "
            self.spoken.set()
            await self.gate.wait()
            if request.text == "fail":
                raise AgentError("As you wish.")
            yield request.text
        finally:
            self.ended.set()


@pytest.fixture
def agent() -> Speaker:
    return Speaker()


@pytest.fixture
async def service(settings: Settings, agent: Speaker) -> AsyncGenerator[Service]:
    async with serving(settings, {"speaker": agent.__call__}) as running:
        yield running


@pytest.fixture
async def http(service: Service) -> AsyncGenerator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=f"{service.url}/v1", timeout=20) as client:
        yield client


@pytest.fixture
async def idle(settings: Settings) -> AsyncGenerator[httpx.AsyncClient]:
    """A client of a service without workers."""
    async with (
        serving(settings, {"test": Speaker().__call__}, workers=0) as service,
        httpx.AsyncClient(base_url=f"{service.url}/v1", timeout=20) as client,
    ):
        yield client


async def queued(client: httpx.AsyncClient, **asked: Any) -> str:
    """The id of a run that was put into the queue."""
    return (await client.post("/responses", json={"input": "hi", "background": True, **asked})).json()["id"]


async def speaking(client: httpx.AsyncClient, agent: Speaker) -> str:
    """The id of a run whose agent has said something and waits."""
    response_id = await queued(client)
    await agent.spoken.wait()
    return response_id


async def only_run(database: Database) -> str:
    page = await database.run(lambda c: operating.page(c, RunFilter(), limit=2))
    [run] = page.runs
    return response_id_of(run.run_id)


async def replayed(client: httpx.AsyncClient, response_id: str) -> tuple[list[dict[str, Any]], bytes]:
    answer = await client.get(f"/responses/{response_id}?stream=true")
    return check_log(data_lines(answer.content)), answer.content


# -- cancel ------------------------------------------------------------------------------------------------------------


async def test_a_run_that_no_worker_has_taken_is_cancelled_at_once(idle: httpx.AsyncClient) -> None:
    response_id = await queued(idle)
    cancelled = await idle.post(f"/responses/{response_id}/cancel")

    assert cancelled.json()["status"] == "cancelled" and cancelled.json()["output"] == []
    assert (await idle.get(f"/responses/{response_id}")).content == cancelled.content
    events, _ = await replayed(idle, response_id)
    assert [event["type"] for event in events] == ["response.created", "response.queued", "response.incomplete"]


async def test_a_run_that_goes_on_is_cancelled_and_keeps_what_was_said(http: httpx.AsyncClient, agent: Speaker) -> None:
    response_id = await speaking(http, agent)
    cancelled = (await http.post(f"/responses/{response_id}/cancel")).json()

    assert cancelled["status"] == "cancelled"
    assert cancelled["error"] is None and cancelled["incomplete_details"] is None and cancelled["completed_at"] is None
    [message] = cancelled["output"]
    assert message["status"] == "incomplete" and message["content"][0]["text"] == "You said: "
    assert agent.ended.is_set()


async def test_a_stream_of_a_cancelled_run_ends_as_incomplete_and_then_done(
    http: httpx.AsyncClient, agent: Speaker
) -> None:
    response_id = await speaking(http, agent)
    following = asyncio.create_task(http.get(f"/responses/{response_id}?stream=true"))
    cancelled = await http.post(f"/responses/{response_id}/cancel")
    followed = (await following).content

    last = json.loads(data_lines(followed)[-1])
    assert last["type"] == "response.incomplete" and last["response"] == cancelled.json()
    assert followed.endswith(b"data: [DONE]\n\n") and (await replayed(http, response_id))[1] == followed


async def test_who_waits_for_a_run_that_is_cancelled_gets_it_cancelled(
    http: httpx.AsyncClient, agent: Speaker, database: Database
) -> None:
    waiting = asyncio.create_task(http.post("/responses", json={"input": "hi"}))
    await agent.spoken.wait()
    await http.post(f"/responses/{await only_run(database)}/cancel")

    assert (await waiting).status_code == 200 and (await waiting).json()["status"] == "cancelled"


async def test_cancelling_twice_answers_the_same(http: httpx.AsyncClient, agent: Speaker) -> None:
    response_id = await speaking(http, agent)
    answers = await asyncio.gather(*(http.post(f"/responses/{response_id}/cancel") for _ in range(5)))
    answers.append(await http.post(f"/responses/{response_id}/cancel"))

    assert {(answer.status_code, answer.content) for answer in answers} == {(200, answers[0].content)}
    assert answers[0].json()["status"] == "cancelled"


@pytest.mark.parametrize(("asked", "status"), [("hi", "completed"), ("fail", "failed")])
async def test_what_has_ended_cannot_be_cancelled(
    http: httpx.AsyncClient, service: Service, agent: Speaker, asked: str, status: str
) -> None:
    agent.gate.set()
    response = (await http.post("/responses", json={"input": asked})).json()
    assert response["status"] == status

    answer = await http.post(f"/responses/{response['id']}/cancel")
    assert answer.status_code == 400 and answer.headers["x-should-retry"] == "false"
    assert answer.json()["error"]["message"] == f"Cannot cancel a {status} response."
    with pytest.raises(openai.BadRequestError, match="Cannot cancel"):
        await service.openai.responses.cancel(response["id"])
    assert (await http.get(f"/responses/{response['id']}")).json() == response


async def test_a_cancelled_run_lets_the_next_of_its_conversation_run(http: httpx.AsyncClient, agent: Speaker) -> None:
    first = await queued(http, conversation="c")
    await agent.spoken.wait()
    second = await queued(http, conversation="c")
    third = await queued(http, conversation="c")
    await http.post(f"/responses/{second}/cancel")
    await http.post(f"/responses/{first}/cancel")
    agent.gate.set()

    ends = [(await http.get(f"/responses/{run}?wait=20")).json()["status"] for run in (first, second, third)]
    assert ends == ["cancelled", "cancelled", "completed"]


async def test_a_run_between_two_attempts_is_cancelled_without_a_worker(
    idle: httpx.AsyncClient, database: Database
) -> None:
    response_id = await queued(idle)
    run = await claimed_one(database)
    await database.run(lambda c: leases.release(c, [Lease(run.run_id, run.attempt)], cause="test"))

    answer = (await idle.post(f"/responses/{response_id}/cancel")).json()

    assert (answer["status"], answer["output"]) == ("cancelled", [])


async def test_what_was_said_before_a_cancel_between_two_attempts_is_kept(
    idle: httpx.AsyncClient, database: Database
) -> None:
    response_id = await queued(idle)
    run = await claimed_one(database)
    output = Output(run, partial(item_id, run.run_id), lambda: 0.0)
    said = [*output.begin(), *output.emit(Usage(3)), *output.emit(ToolCall("t", {}, "c")), *output.emit("I was saying")]
    chunk = Chunk(said[0].sequence_number, said[-1].sequence_number, "\n".join(map(event_line, said)))
    await append(database, Append(run.run_id, run.attempt, chunk))
    await database.run(lambda c: leases.release(c, [Lease(run.run_id, run.attempt)], cause="test"))
    cancelled = (await idle.post(f"/responses/{response_id}/cancel")).json()
    events, _ = await replayed(idle, response_id)

    assert [(item["type"], item["status"]) for item in cancelled["output"]] == [
        ("mcp_call", "incomplete"), ("message", "incomplete")
    ]  # fmt: skip
    assert cancelled["output"][1]["content"][0]["text"] == "I was saying"
    assert (cancelled["status"], cancelled["usage"]["input_tokens"]) == ("cancelled", 3)
    assert [event["outlast"] for event in events if "outlast" in event] == [{"attempt": 2, "superseded": []}]


# -- delete ------------------------------------------------------------------------------------------------------------


async def gone(client: httpx.AsyncClient, response_id: str) -> bool:
    answers = [
        await client.get(f"/responses/{response_id}"),
        await client.get(f"/responses/{response_id}?stream=true"),
        await client.post(f"/responses/{response_id}/cancel"),
        await client.delete(f"/responses/{response_id}"),
    ]
    return [answer.status_code for answer in answers] == [404] * 4


async def test_a_response_is_deleted_with_its_events(http: httpx.AsyncClient, agent: Speaker, service: Service) -> None:
    agent.gate.set()
    response_id = (await http.post("/responses", json={"input": "hi"})).json()["id"]
    deleted = await http.delete(f"/responses/{response_id}")

    assert deleted.json() == {"id": response_id, "object": "response", "deleted": True}
    assert await gone(http, response_id)
    other = (await http.post("/responses", json={"input": "hi"})).json()["id"]
    assert await service.openai.responses.delete(other) is None


async def test_a_run_in_the_queue_is_deleted(idle: httpx.AsyncClient) -> None:
    response_id = await queued(idle)
    assert (await idle.delete(f"/responses/{response_id}")).status_code == 200
    assert await gone(idle, response_id)


async def test_deleting_a_run_that_goes_on_ends_its_agent_and_aborts_its_streams(
    http: httpx.AsyncClient, agent: Speaker, service: Service
) -> None:
    response_id = await speaking(http, agent)
    following = asyncio.create_task(http.get(f"/responses/{response_id}?stream=true"))
    waiting = asyncio.create_task(http.get(f"/responses/{response_id}?wait=20"))

    async def watched() -> bool:
        return service.replicas[0].services.tail.streams == 2

    await until(watched)
    assert (await http.delete(f"/responses/{response_id}")).status_code == 200

    with pytest.raises(httpx.RemoteProtocolError):
        await following
    assert (await waiting).status_code == 404
    async with asyncio.timeout(20):
        await agent.ended.wait()
    assert await gone(http, response_id)


async def test_who_posted_a_run_that_is_deleted_is_not_left_waiting(
    http: httpx.AsyncClient, agent: Speaker, database: Database
) -> None:
    waiting = asyncio.create_task(http.post("/responses", json={"input": "hi"}))
    await agent.spoken.wait()
    await http.delete(f"/responses/{await only_run(database)}")

    assert (await waiting).status_code == 404 and (await waiting).headers["x-should-retry"] == "false"


async def test_a_deleted_run_lets_the_next_of_its_conversation_run(http: httpx.AsyncClient, agent: Speaker) -> None:
    first = await queued(http, conversation="c")
    await agent.spoken.wait()
    second = await queued(http, conversation="c")
    agent.gate.set()
    await http.delete(f"/responses/{first}")

    assert (await http.get(f"/responses/{second}?wait=20")).json()["status"] == "completed"
