"""A request that is sent again with its Idempotency-Key finds the run of the first one, in whatever mode."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator
from typing import Any

import httpx
import pytest

from outlast.shared.settings import Settings
from tests.support.log import data_lines
from tests.support.refusals import refused
from tests.support.service import Service, gated_by, serving
from tests.support.waiting import until


@pytest.fixture
def gate() -> asyncio.Event:
    return asyncio.Event()


@pytest.fixture
async def service(settings: Settings, gate: asyncio.Event) -> AsyncGenerator[Service]:
    async with serving(settings, {"gated": gated_by(gate)}, replicas=2) as running:
        yield running


@pytest.fixture
async def http(service: Service) -> AsyncGenerator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=service.url, timeout=20) as client:
        yield client


async def post(http: httpx.AsyncClient, key: str, /, **asked: Any) -> httpx.Response:
    return await http.post("/v1/responses", json={"input": "hi", **asked}, headers={"Idempotency-Key": key})


def replayed(answer: httpx.Response) -> bool:
    assert answer.status_code == 200, answer.text
    return answer.headers.get("idempotent-replayed") == "true"


async def test_a_repeated_request_gets_the_same_response_in_its_present_state(
    http: httpx.AsyncClient, gate: asyncio.Event
) -> None:
    first = await post(http, "k", background=True)
    again = await post(http, "k", background=True)
    assert (replayed(first), replayed(again)) == (False, True)
    assert again.json()["id"] == first.json()["id"] and again.json()["status"] in ("queued", "in_progress")

    gate.set()
    await http.get(f"/v1/responses/{first.json()['id']}?wait=20")
    after = (await post(http, "k", background=True)).json()
    assert (after["id"], after["status"]) == (first.json()["id"], "completed")


async def test_a_repeated_foreground_request_waits_for_the_same_end(
    http: httpx.AsyncClient, gate: asyncio.Event
) -> None:
    first = asyncio.create_task(post(http, "k"))
    listed = asyncio.create_task(post(http, "k"))
    await asyncio.sleep(0)
    gate.set()
    answers = [await first, await listed, await post(http, "k")]
    assert sorted(map(replayed, answers)) == [False, True, True]
    assert answers[0].content == answers[1].content == answers[2].content
    assert answers[0].json()["status"] == "completed"


async def test_a_repeated_stream_begins_at_the_beginning(http: httpx.AsyncClient, gate: asyncio.Event) -> None:
    gate.set()
    answers = [await post(http, "k", stream=True) for _ in range(3)]
    assert list(map(replayed, answers)) == [False, True, True]
    first, *others = [data_lines(answer.content) for answer in answers]  # a slow one may have pings between them
    assert others == [first, first]
    assert '"sequence_number":0,' in answers[0].text and answers[0].text.endswith("data: [DONE]\n\n")


async def test_another_request_with_the_key_is_refused_and_not_tried_again(http: httpx.AsyncClient) -> None:
    await post(http, "k", background=True, metadata={"a": "1", "b": "2"})
    other = [{"input": "ho"}, {"previous_response_id": None}, {"conversation": "c"}, {"metadata": {"a": "1"}}]
    for change in other:
        answer = await post(http, "k", **{"background": True, "metadata": {"a": "1", "b": "2"}, **change})
        assert "Idempotency-Key" in refused(answer, 422, code="idempotency_key_reused")
        assert answer.headers["x-should-retry"] == "false"

    spelled = json.dumps({"metadata": {"b": "2", "a": "1"}, "input": "hi", "background": True}, indent=3)
    assert replayed(await http.post("/responses", content=spelled, headers={"idempotency-key": "k"}))


async def test_two_at_once_at_two_replicas_are_one_run(service: Service) -> None:
    async with httpx.AsyncClient(timeout=20) as client:
        for n in range(10):
            answers = await asyncio.gather(
                *(
                    client.post(
                        f"{replica.url}/v1/responses",
                        json={"input": "hi", "background": True},
                        headers={"Idempotency-Key": f"k{n}"},
                    )
                    for replica in service.replicas * 3
                )
            )
            assert len({answer.json()["id"] for answer in answers}) == 1
            assert sum(not replayed(answer) for answer in answers) == 1


async def test_a_deleted_run_frees_its_key(http: httpx.AsyncClient) -> None:
    first = (await post(http, "k", background=True)).json()["id"]
    await http.delete(f"/v1/responses/{first}")
    second = await post(http, "k", background=True, input="another")
    assert not replayed(second) and second.json()["id"] != first


@pytest.mark.parametrize("key", ["", "x" * 256, "tab\there", "caf\u00e9"])
async def test_a_key_that_is_none_is_refused(http: httpx.AsyncClient, key: str) -> None:
    headers = {"Idempotency-Key": key.encode()}
    answer = await http.post("/v1/responses", json={"input": "hi"}, headers=headers)  # type: ignore[arg-type]
    assert "Idempotency-Key" in refused(answer, 400, param="Idempotency-Key", code="invalid_value")


async def test_the_longest_key_is_a_key(http: httpx.AsyncClient) -> None:
    assert not replayed(await post(http, "x y" * 85, background=True))
    assert replayed(await post(http, "x y" * 85, background=True))


async def test_a_run_that_follows_another_can_be_repeated_when_that_one_is_gone(http: httpx.AsyncClient) -> None:
    first = (await post(http, "first", background=True)).json()["id"]
    second = await post(http, "second", background=True, previous_response_id=first)
    await http.delete(f"/v1/responses/{first}")
    assert replayed(again := await post(http, "second", background=True, previous_response_id=first))
    assert again.json()["id"] == second.json()["id"]


async def test_the_openai_client_sends_keys(service: Service, gate: asyncio.Event) -> None:
    gate.set()
    asked: dict[str, Any] = {"input": "hi", "extra_headers": {"Idempotency-Key": "k"}}
    first, second = [await replica.openai.responses.create(**asked) for replica in service.replicas]
    assert first.id == second.id and first.output_text == "hi"

    async def stored() -> bool:
        return (await service.openai.responses.retrieve(first.id)).status == "completed"

    await until(stored)


async def test_the_document_names_the_header_and_the_refusals(http: httpx.AsyncClient) -> None:
    paths = (await http.get("/openapi.json")).json()["paths"]
    for path, methods in {"/v1/responses": "GET, POST", "/v1/invocations": "POST"}.items():
        described = paths[path]["post"]
        assert [parameter["name"] for parameter in described["parameters"]] == ["Idempotency-Key"]
        assert set(described["responses"]) >= {"200", "422", "429"} and described["requestBody"]["required"]
        refusal = await http.put(path)
        assert (refusal.status_code, refusal.headers["allow"]) == (405, methods)
