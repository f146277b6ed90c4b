"""Reading a response: by poll, by waiting, by stream as a browser does it."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncGenerator
from typing import Any

import httpx
import pytest

from outlast.agent import Context, Request
from outlast.shared.settings import Settings
from tests.support.service import Service, serving
from tests.support.waiting import until


@pytest.fixture
def gate() -> asyncio.Event:
    """What the agent waits for after its first words."""
    return asyncio.Event()


@pytest.fixture
async def service(settings: Settings, gate: asyncio.Event) -> AsyncGenerator[Service]:
    async def agent(request: Request, _context: Context):
        yield "You said: "
        await gate.wait()
        yield request.text

    async with serving(settings, {"echo": agent}) as running:
        yield running


@pytest.fixture
async def http(service: Service) -> AsyncGenerator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=f"{service.url}/v1", timeout=20) as client:
        yield client


async def begun(http: httpx.AsyncClient) -> str:
    """The id of a run that waits at the gate."""
    created = (await http.post("/responses", json={"input": "hi", "background": True})).json()

    async def in_progress() -> bool:
        return (await http.get(f"/responses/{created['id']}")).json()["status"] == "in_progress"

    await until(in_progress)
    return created["id"]


async def ended(http: httpx.AsyncClient, gate: asyncio.Event) -> str:
    gate.set()
    return (await http.post("/responses", json={"input": "hi"})).json()["id"]


async def watched_by(service: Service, viewers: int) -> bool:
    return service.replicas[0].services.tail.streams == viewers


# -- the object --------------------------------------------------------------------------------------------------------


async def test_what_was_created_is_what_is_retrieved(http: httpx.AsyncClient, gate: asyncio.Event) -> None:
    gate.set()
    created = await http.post("/responses", json={"input": "hi", "metadata": {"a": "b"}})
    retrieved = await http.get(f"/responses/{created.json()['id']}")

    assert retrieved.content == created.content
    assert created.json()["metadata"] == {"a": "b"} and created.json()["conversation"]["id"].startswith("conv_")


async def test_a_version_that_the_client_has_is_not_sent_again(http: httpx.AsyncClient, gate: asyncio.Event) -> None:
    response_id = await begun(http)
    first = await http.get(f"/responses/{response_id}")
    tag = first.headers["etag"]

    for match in (tag, f"W/{tag}", f'"another", {tag}', "*"):
        again = await http.get(f"/responses/{response_id}", headers={"if-none-match": match})
        assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", tag)

    gate.set()
    waited = await http.get(f"/responses/{response_id}?wait=20")
    changed = await http.get(f"/responses/{response_id}", headers={"if-none-match": tag})
    assert changed.status_code == 200 and changed.headers["etag"] != tag and changed.content == waited.content


async def test_a_run_in_progress_shows_every_key(http: httpx.AsyncClient, gate: asyncio.Event) -> None:
    going_on = (await http.get(f"/responses/{await begun(http)}")).json()
    over = (await http.get(f"/responses/{await ended(http, gate)}")).json()

    assert list(going_on) == list(over)
    assert (going_on["attempt_number"], going_on["output"], going_on["usage"]["total_tokens"]) == (1, [], 0)


# -- waiting -----------------------------------------------------------------------------------------------------------


async def test_waiting_ends_with_the_run(service: Service, http: httpx.AsyncClient, gate: asyncio.Event) -> None:
    response_id = await begun(http)
    waiting = asyncio.create_task(http.get(f"/responses/{response_id}?wait=20"))
    await until(lambda: watched_by(service, 1))
    assert not waiting.done()
    gate.set()
    assert (await waiting).json()["status"] == "completed"


async def test_waiting_ends_with_its_time(http: httpx.AsyncClient) -> None:
    answer = await http.get(f"/responses/{await begun(http)}?wait=0.05")
    assert answer.status_code == 200 and answer.json()["status"] == "in_progress"


async def test_a_run_that_has_ended_is_not_waited_for(http: httpx.AsyncClient, gate: asyncio.Event) -> None:
    answer = await http.get(f"/responses/{await ended(http, gate)}?wait=300")
    assert answer.json()["status"] == "completed" and answer.headers["etag"]


# -- streams for browsers ----------------------------------------------------------------------------------------------


def frames(answer: httpx.Response) -> list[dict[str, Any]]:
    """The frames of a numbered stream, which begins with a delay for reconnecting and ends with `[DONE]`."""
    retry, *events, done = answer.text.removesuffix("\n\n").split("\n\n")
    assert re.fullmatch(r"retry: [123]\d\d\d", retry) and done == "data: [DONE]"
    found: list[dict[str, Any]] = []
    for frame in events:
        id_line, event_line, data_line = frame.split("\n")
        event = json.loads(data_line.removeprefix("data: "))
        assert (id_line, event_line) == (f"id: {event['sequence_number']}", f"event: {event['type']}")
        found.append(event)
    return found


async def test_a_browser_gets_numbered_frames_and_goes_on_from_the_last(
    http: httpx.AsyncClient, gate: asyncio.Event
) -> None:
    url = f"/responses/{await ended(http, gate)}?stream=true&ids=true"
    events = frames(await http.get(url))
    assert [event["sequence_number"] for event in events] == list(range(len(events)))

    for last in range(len(events) - 1):
        assert frames(await http.get(url, headers={"last-event-id": str(last)})) == events[last + 1 :]
        assert frames(await http.get(f"{url}&starting_after={last}")) == events[last + 1 :]


async def test_a_browsers_own_cursor_wins_over_the_one_in_its_address(
    http: httpx.AsyncClient, gate: asyncio.Event
) -> None:
    url = f"/responses/{await ended(http, gate)}?stream=true&starting_after=1"

    numbered = await http.get(f"{url}&ids=true", headers={"last-event-id": "4"})
    plain = await http.get(url, headers={"last-event-id": "4"})
    assert frames(numbered)[0]["sequence_number"] == 5
    assert (
        b'"sequence_number":2,' in plain.content and b"\nid: " not in plain.content and b"retry:" not in plain.content
    )


async def test_a_cursor_that_is_none_of_ours_is_ignored(http: httpx.AsyncClient, gate: asyncio.Event) -> None:
    url = f"/responses/{await ended(http, gate)}?stream=true&ids=true"
    for last in (b"", b"x", b"-1", b"1.5", b"99999999999999999999", "\u0661".encode()):
        answer = await http.get(url, headers=[(b"last-event-id", last)])
        assert frames(answer)[0]["sequence_number"] == 0, last


async def test_a_browser_is_told_to_stop_when_nothing_can_follow(http: httpx.AsyncClient, gate: asyncio.Event) -> None:
    response_id = await ended(http, gate)
    url = f"/responses/{response_id}?stream=true&ids=true"
    last = frames(await http.get(url))[-1]["sequence_number"]

    for cursor in (last, last + 1, 999_999_999):
        answer = await http.get(url, headers={"last-event-id": str(cursor)})
        assert (answer.status_code, answer.content) == (204, b"")
        plain = await http.get(f"/responses/{response_id}?stream=true&starting_after={cursor}")
        assert (plain.status_code, plain.content) == (200, b"data: [DONE]\n\n")


async def test_a_cursor_at_the_end_of_a_run_that_goes_on_waits_for_more(
    service: Service, http: httpx.AsyncClient, gate: asyncio.Event
) -> None:
    response_id = await begun(http)
    async with http.stream("GET", f"/responses/{response_id}?stream=true&ids=true") as stream:
        async for line in stream.aiter_lines():
            if line == "event: response.output_text.delta":
                break
    await until(lambda: watched_by(service, 0))
    url = f"/responses/{response_id}?stream=true&ids=true"
    following = asyncio.create_task(http.get(url, headers={"last-event-id": "5"}))
    far_ahead = asyncio.create_task(http.get(url, headers={"last-event-id": "99"}))
    await until(lambda: watched_by(service, 2))
    gate.set()

    assert [event["sequence_number"] for event in frames(await following)] == [6, 7, 8, 9, 10]
    assert frames(await far_ahead) == []


async def test_a_quiet_stream_shows_that_it_lives(http: httpx.AsyncClient, gate: asyncio.Event) -> None:
    async with http.stream("GET", f"/responses/{await begun(http)}?stream=true&starting_after=5") as stream:
        lines = stream.aiter_lines()
        assert await anext(lines) == ": ping"
        gate.set()
        rest = [line async for line in lines]
    assert rest[-2:] == ["data: [DONE]", ""]
