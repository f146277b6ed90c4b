"""Where a request may be posted, which conversation it belongs to, and what else is served."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncGenerator
from typing import Any

import httpx
import openai
import pytest
from jsonschema import Draft202012Validator

from outlast.agent import Context, Request, ToolCall, ToolResult
from outlast.shared.connections import Database
from outlast.shared.settings import Settings
from tests.support.refusals import NOBODY
from tests.support.service import Service, gated_by, serving
from tests.support.waiting import until


async def clock(_request: Request, _context: Context):
    yield ToolCall("clock", {}, "c1")
    yield ToolResult("c1", "12:00")


@pytest.fixture
def gate() -> asyncio.Event:
    return asyncio.Event()


@pytest.fixture
async def service(settings: Settings, gate: asyncio.Event) -> AsyncGenerator[Service]:
    async with serving(settings, {"clock": clock, "gated": gated_by(gate)}) as running:
        yield running


@pytest.fixture
async def http(service: Service) -> AsyncGenerator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=service.url, timeout=20) as client:
        yield client


async def post(http: httpx.AsyncClient, path: str = "/v1/responses", **asked: Any) -> dict[str, Any]:
    answer = await http.post(path, json={"input": "hi", **asked})
    assert answer.status_code == 200, answer.text
    return answer.json()


MCP, PAIR, NONE = ["mcp_call"], ["function_call", "function_call_output"], []
TOOLS_SHOWN: list[tuple[str, dict[str, Any], list[str]]] = [
    ("/responses", {}, MCP),
    ("/v1/responses", {}, MCP),
    ("/invocations", {}, PAIR),
    ("/v1/invocations", {}, PAIR),
    ("/v1/responses", {"custom_inputs": {"a": 1}}, PAIR),
    ("/v1/responses", {"custom_inputs": {}}, PAIR),
    ("/v1/responses", {"context": {"user_id": "u"}}, PAIR),
    ("/invocations", {"tool_items": "mcp_call"}, MCP),
    ("/v1/responses", {"tool_items": "function_call"}, PAIR),
    ("/v1/responses", {"tool_items": "hidden", "context": {}}, NONE),
]


async def test_tools_are_shown_as_the_route_and_the_request_suggest(http: httpx.AsyncClient) -> None:
    answers = await asyncio.gather(*(post(http, path, **asked) for path, asked, _ in TOOLS_SHOWN))
    for (path, asked, shown), answer in zip(TOOLS_SHOWN, answers, strict=True):
        assert [item["type"] for item in answer["output"]] == shown, (path, asked)


async def test_a_conversation_is_named_by_the_first_of_four_or_new(http: httpx.AsyncClient) -> None:
    first = await post(http, conversation="mine")
    previous: dict[str, Any] = {"previous_response_id": first["id"]}
    context: dict[str, Any] = {"context": {"conversation_id": "theirs"}}
    custom: dict[str, Any] = {"custom_inputs": {"thread_id": "custom"}}
    named = [
        ({"conversation": {"id": "given"}, **custom, **context}, "given"),
        ({**custom, **context, **previous}, "custom"),
        ({"custom_inputs": {"thread_id": 0}}, "0"),
        ({"custom_inputs": {"thread_id": ""}, **context, **previous}, "theirs"),
        ({"context": {"conversation_id": ""}, **previous}, "mine"),
        ({"context": {}, "custom_inputs": {}, **previous}, "mine"),
    ]
    answers = await asyncio.gather(*(post(http, **asked) for asked, _ in named), post(http), post(http))

    assert [answer["conversation"]["id"] for answer in answers[:-2]] == [name for _, name in named]
    fresh = {answer["conversation"]["id"] for answer in answers[-2:]}
    assert len(fresh) == 2 and all(re.fullmatch("conv_[0-9a-f]{32}", name) for name in fresh)
    assert answers[-3]["previous_response_id"] == first["id"]


async def test_a_run_on_a_busy_conversation_waits_for_its_turn(http: httpx.AsyncClient, gate: asyncio.Event) -> None:
    async def status(response: dict[str, Any]) -> str:
        return (await http.get(f"/v1/responses/{response['id']}")).json()["status"]

    async def first_runs() -> bool:
        return await status(first) == "in_progress"

    first = await post(http, model="gated", conversation="c", background=True)
    await until(first_runs)
    second = await post(http, model="gated", conversation="c", background=True)
    third = await post(http, model="gated", background=True, previous_response_id=second["id"])
    other = await post(http, model="clock", conversation="d")
    assert (other["status"], await status(second), await status(third)) == ("completed", "queued", "queued")

    gate.set()
    ends = [(await http.get(f"/v1/responses/{run['id']}?wait=20")).json() for run in (first, second, third)]
    assert [end["status"] for end in ends] == ["completed"] * 3
    assert {end["conversation"]["id"] for end in ends} == {"c"}


# -- what else is served -----------------------------------------------------------------------------------------------


async def test_agents_are_listed_as_models(service: Service, http: httpx.AsyncClient) -> None:
    assert [model.id async for model in service.openai.models.list()] == ["clock", "gated"]
    info = (await http.get("/agent/info")).json()
    assert (info["name"], info["agents"], info["agent_api"]) == ("clock", ["clock", "gated"], "responses")


async def test_an_unknown_model_runs_the_default_agent_unless_models_are_strict(
    http: httpx.AsyncClient, settings: Settings
) -> None:
    assert (await post(http, model="gpt-9"))["model"] == "gpt-9"

    strict = settings.model_copy(update={"strict_models": True})
    async with (
        serving(strict, {"clock": clock}, workers=0) as service,
        httpx.AsyncClient(base_url=service.url) as client,
    ):
        answer = await client.post("/v1/responses", json={"input": "hi", "model": "gpt-9"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "model_not_found")


async def test_a_replica_tells_how_it_is(http: httpx.AsyncClient) -> None:
    assert (await http.get("/health")).json() == {"status": "healthy"}
    for path in ("/health", "/ready"):  # as uptime monitors ask
        assert (await http.head(path)).status_code == 200
    assert (await http.get("/ready")).json() == {"status": "ready"}
    metrics = await http.get("/metrics")
    assert metrics.headers["content-type"].startswith("text/plain") and "outlast_streams 0.0" in metrics.text


async def test_a_replica_that_cannot_serve_says_when_to_ask_again(
    http: httpx.AsyncClient, database: Database, service: Service
) -> None:
    await database.run(lambda c: c.execute("ALTER SCHEMA outlast RENAME TO elsewhere"))

    for method, path in (("GET", "/ready"), ("GET", f"/v1/responses/{NOBODY}"), ("POST", "/v1/responses")):
        answer = await http.request(method, path, json={"input": "hi"} if method == "POST" else None)
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "1"), path
        error = answer.json()["error"]
        assert (error["type"], error["code"]) == ("server_error", "schema_mismatch") and "migrate" in error["message"]
    with pytest.raises(openai.InternalServerError, match="migrate"):
        await service.openai.responses.retrieve(NOBODY)
    assert (await http.get("/health")).status_code == 200


async def test_the_document_of_the_api_is_whole_and_true(http: httpx.AsyncClient) -> None:
    document = (await http.get("/openapi.json")).json()

    for schema in document["components"]["schemas"].values():
        Draft202012Validator.check_schema(schema)
    for reference in references(document):
        found: Any = document
        for part in reference.removeprefix("#/").split("/"):
            found = found[part]
    for path, methods in document["paths"].items():
        for method in methods:
            answer = await http.request(method, path.replace("{id}", NOBODY))
            assert answer.status_code in (200, 400, 404), (method, path)
            assert answer.status_code == 200 or answer.json()["error"]["code"] != "unknown_url", (method, path)
    assert {"/v1/responses", "/v1/responses/{id}", "/v1/responses/{id}/cancel", "/v1/invocations", "/health"} <= set(
        document["paths"]
    )
    assert (await http.get("/docs")).status_code == 200


@pytest.mark.parametrize("auth", ["none", "api_keys"])
async def test_the_document_names_the_errors_that_are_sent_and_no_other(settings: Settings, auth: str) -> None:
    ours = settings.model_copy(update={"auth": auth})
    async with (
        serving(ours, {"clock": clock}) as service,
        httpx.AsyncClient(base_url=service.url, timeout=20) as http,
    ):
        document = (await http.get("/openapi.json")).json()
        assert "HTTPValidationError" not in str(document) and "Successful" in str(document)
        for path, methods in document["paths"].items():
            for method, operation in methods.items():
                answers = operation["responses"]
                asked = [
                    (b"{", {}),
                    (b"x" * 17_000_000, {}),
                    (None, {"x-outlast-principal": ""}),
                    (None, {"host": "evil"}),
                ]
                for content, headers in asked if method == "post" else asked[2:]:
                    url = path.replace("{id}", NOBODY).replace("{owner}", "h:1:x")
                    answer = await http.request(method, url, content=content, headers=headers)
                    assert str(answer.status_code) in answers, (method, path, answer.status_code)
                for status, said in answers.items():
                    if int(status) >= 400:
                        assert said["content"]["application/json"]["schema"] == {"$ref": "#/components/schemas/Error"}
                assert ("401" in answers) == (auth == "api_keys" and "security" not in operation)
                assert ("422" in answers) == (path in ("/v1/responses", "/v1/invocations") and method == "post")


def references(value: Any) -> list[str]:
    if isinstance(value, list):
        return [reference for part in value for reference in references(part)]
    if not isinstance(value, dict):
        return []
    own = [value["$ref"]] if isinstance(value.get("$ref"), str) else []
    return own + [reference for part in value.values() for reference in references(part)]
