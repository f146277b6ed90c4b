"""The five modes of the contract, through the unmodified openai client, on two replicas."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator

import httpx
import pytest

from outlast.agent import Context, Reasoning, Request, State, ToolCall, ToolResult, Usage
from outlast.shared.connections import Database
from outlast.shared.settings import Settings
from tests.support.log import check_log, data_lines, stored_lines
from tests.support.service import Service, serving
from tests.support.waiting import until


async def echo(request: Request, _context: Context):
    yield Reasoning("Think of what was said.")
    yield ToolCall("clock", {"zone": "UTC"}, call_id="call_1")
    yield ToolResult("call_1", "12:00")
    for word in ("You ", "said: ", request.text):
        await asyncio.sleep(0)
        yield word
    yield Usage(input_tokens=3, output_tokens=4)
    yield State({"turn": 1})


@pytest.fixture
async def service(settings: Settings) -> AsyncGenerator[Service]:
    silent = settings.model_copy(update={"ping_seconds": 60.0})  # bytes are compared, however slow the first answer is
    async with serving(silent, {"echo": echo}, replicas=2) as running:
        yield running


async def test_invoke_answers_with_the_finished_response(service: Service) -> None:
    response = await service.openai.responses.create(model="echo", input="hi")

    assert response.status == "completed"
    assert response.output_text == "You said: hi"
    assert [item.type for item in response.output] == ["reasoning", "mcp_call", "message"]
    assert response.usage is not None and response.usage.total_tokens == 7
    assert response.model_extra is not None and response.model_extra["custom_outputs"] == {"turn": 1}


async def test_stream_sends_numbered_events_and_its_accumulator_agrees_with_the_response(service: Service) -> None:
    async with service.openai.responses.stream(model="echo", input="hi") as stream:
        events = [event async for event in stream]
        final = await stream.get_final_response()

    # The accumulator adds events of its own making, without numbers of their own.
    assert events[-1].type == "response.completed"
    assert final.output_text == "You said: hi"
    retrieved = await service.openai.responses.retrieve(final.id)
    assert retrieved.output == final.to_dict()["output"] or retrieved.output_text == final.output_text


async def test_background_is_answered_at_once_and_polled_on_another_replica(service: Service) -> None:
    response = await service.openai.responses.create(model="echo", input="hi", background=True)
    assert response.status in ("queued", "in_progress") and response.background

    other = service.replicas[1].openai

    async def finished():
        found = await other.responses.retrieve(response.id)
        return found if found.status == "completed" else None

    assert (await until(finished)).output_text == "You said: hi"


async def test_background_stream_is_resumed_by_stream_on_another_replica_at_every_position(
    service: Service, database: Database
) -> None:
    stream = await service.openai.responses.create(model="echo", input="hi", background=True, stream=True)
    events = [event async for event in stream]
    response_id = events[0].response.id  # type: ignore[union-attr]
    lines = await stored_lines(database, response_id)
    check_log(lines)

    async with httpx.AsyncClient(base_url=service.replicas[1].url) as client:
        for position in range(-1, len(lines) + 2):
            query = f"?stream=true&starting_after={position}" if position >= 0 else "?stream=true"
            answer = await client.get(f"/v1/responses/{response_id}{query}")
            assert data_lines(answer.content) == lines[position + 1 :]
            assert answer.content.endswith(b"data: [DONE]\n\n")


async def test_background_stream_is_resumed_by_poll(service: Service) -> None:
    stream = await service.openai.responses.create(model="echo", input="hi", background=True, stream=True)
    first = await anext(aiter(stream))
    await stream.close()

    async def finished():
        found = await service.replicas[1].openai.responses.retrieve(first.response.id)  # type: ignore[union-attr]
        return found if found.status == "completed" else None

    assert (await until(finished)).output_text == "You said: hi"


async def test_following_and_replaying_give_the_same_bytes(service: Service) -> None:
    async with httpx.AsyncClient(base_url=service.url) as client:
        followed = await client.post("/responses", json={"input": "hi", "stream": True, "background": True})
        response_id = data_lines(followed.content)[0].partition('"id":"')[2].partition('"')[0]
        replayed = await client.get(f"/responses/{response_id}?stream=true")

    assert followed.content == replayed.content
