"""Whatever a client sends, it gets OpenAI's error body with a status of 4xx and an id; never a 500, never a hang."""

from __future__ import annotations

import asyncio
import gzip
import json
from collections.abc import AsyncGenerator
from typing import Any, Literal, get_args, get_origin, get_type_hints

import httpx
import openai
import pytest
from fastapi import FastAPI
from openai.types.responses.response_input_item_param import ResponseInputItemParam

from outlast.agent import Context, Request, State
from outlast.api import errors
from outlast.api.answer_headers import AnswerHeaders
from outlast.api.schemas import ITEM_TYPES, OTHER_ITEM_TYPES
from outlast.shared.connections import Database
from outlast.shared.domain.ids import response_id
from outlast.shared.settings import Settings
from tests.support.refusals import NOBODY, refused
from tests.support.runs import submitted
from tests.support.service import Service, serving


async def mirror(request: Request, context: Context):
    """Shows what reached it."""
    yield State({"body": request.body, "thread": context.thread_id})


@pytest.fixture
async def service(settings: Settings) -> AsyncGenerator[Service]:
    async with serving(settings, {"mirror": mirror}) as running:
        yield running


@pytest.fixture
async def http(service: Service) -> AsyncGenerator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=service.url, timeout=20) as client:
        yield client


NOT_REQUESTS: dict[str, bytes] = {
    "nothing": b"",
    "only space": b" \r\n\t ",
    "text": b"hello",
    "half of an object": b'{"input": "hi"',
    "two objects": b'{"input": "hi"}{"input": "hi"}',
    "a list": b'[{"input": "hi"}]',
    "a number": b"17",
    "a string": b'"input"',
    "null": b"null",
    "a form": b"input=hi&stream=true",
    "no number of JSON's": b'{"input": "hi", "temperature": NaN}',
    "a number beyond all": b'{"input": "hi", "temperature": 1e999}',
    "no UTF-8": b'{"input": "\xff\xfe"}',
    "a surrogate in UTF-8": b'{"input": "\xed\xa0\x80"}',
    "an escaped lone surrogate": b'{"input": "\\ud800"}',
    "UTF-16": '{"input": "hi"}'.encode("utf-16"),
    "a compressed body": b"\x1f\x8b\x08\x00",
    "deeper than can be read": b'{"input": "hi", "x": ' + b"[" * 5000 + b"]" * 5000 + b"}",
    "deeper than can be written": b'{"input": "hi", "x": ' + b"[" * 300 + b"]" * 300 + b"}",
    "metadata too deep to be shown": b'{"input": "hi", "text": {"format": {"type": "text", "x":'
    + b'{"x":' * 251
    + b"1"
    + b"}" * 254,
    "no input": b"{}",
}


async def test_a_compressed_body_is_named(http: httpx.AsyncClient) -> None:
    zipped = await http.post(
        "/v1/responses", content=gzip.compress(b'{"input": "hi"}'), headers={"Content-Encoding": "gzip"}
    )
    assert "compressed (gzip)" in refused(zipped, 400, param="Content-Encoding")


async def test_a_body_that_is_no_request_is_refused(http: httpx.AsyncClient) -> None:
    for name, content in NOT_REQUESTS.items():
        for path in ("/v1/responses", "/responses", "/invocations"):
            answer = await http.post(path, content=content)
            assert refused(answer, 400, param="input" if name == "no input" else None), name


ITEMS: dict[str, tuple[Any, str]] = {
    "a number": (5, "input"),
    "an object": ({"role": "user", "content": "hi"}, "input"),
    "nothing": ([], "input"),
    "texts": (["hi"], "input[0]"),
    "an unknown role": ([{"role": "robot", "content": "hi"}], "input[0].role"),
    "no role": ([{"content": "hi"}], "input[0].role"),
    "no content": ([{"role": "user"}], "input[0].content"),
    "more than can be looked at in time": ([1] * 100_001, "input"),
    "more parts than that": ([{"role": "user", "content": [{}] * 100_000}], "input"),
    "the second item": ([{"role": "user", "content": "hi"}, {"role": "user"}], "input[1].content"),
    "an unknown type": ([{"type": "telegram"}], "input[0].type"),
    "a very long type": ([{"type": "x" * 100_000}], "input[0].type"),
    "a type that is none": ([{"type": 7}], "input[0].type"),
    "content that is a number": ([{"role": "user", "content": 7}], "input[0].content"),
    "content that is an object": ([{"role": "user", "content": {"text": "hi"}}], "input[0].content"),
    "a part without type": ([{"role": "user", "content": [{"text": "hi"}]}], "input[0].content[0].type"),
    "a part with another text": (
        [{"role": "user", "content": [{"type": "input_text", "text": ["hi"]}]}], "input[0].content[0].text",
    ),
    "a call without id": ([{"type": "function_call", "name": "f", "arguments": "{}"}], "input[0].call_id"),
    "arguments as an object": (
        [{"type": "function_call", "call_id": "c", "name": "f", "arguments": {}}], "input[0].arguments",
    ),
    "an output without call": ([{"type": "function_call_output", "output": "1"}], "input[0].call_id"),
    "an output without output": ([{"type": "function_call_output", "call_id": "c"}], "input[0].output"),
    "an approval of nothing": ([{"type": "mcp_approval_response", "approve": True}], "input[0].approval_request_id"),
    "an approval that is text": (
        [{"type": "mcp_approval_response", "approval_request_id": "a", "approve": "yes"}], "input[0].approve",
    ),
    "a reference to nothing": ([{"type": "item_reference"}], "input[0].id"),
}  # fmt: skip


async def test_an_item_that_is_wrong_is_named(http: httpx.AsyncClient) -> None:
    for name, (given, param) in ITEMS.items():
        answer = await http.post("/v1/responses", json={"input": given})
        assert refused(answer, 400, param=param), name


CONTROLLING = ["a\0b", "\n", "\r\t", "\x1b[2J", "\x7f", "\x9b2J", "\u202e", "a\u2066b", "\u2069"]
SCHEMA = {"type": "json_schema", "name": "answer", "schema": {}}
WRONG_FIELDS: dict[str, list[Any]] = {
    "model": [5, ["mirror"]],
    "instructions": [5, ["Be brief."]],
    "stream": ["true", 1, "maybe"],
    "background": ["true", 1],
    "store": ["false", 0],
    "previous_response_id": [5, "", "resp_1", "msg_1", NOBODY, NOBODY.upper(), "resp_" + "g" * 32, "x" * 100_000],
    "conversation": [5, "", "c" * 513, *CONTROLLING, {"id": "a\0"}, {"id": "\u202e"}, ["c"]],
    "conversation.id": [{"id": 5}, {}, {"id": ""}],
    "metadata": [5, ["a"], "a", {str(n): "" for n in range(17)}, {"k" * 65: ""}],
    "metadata.key": [{"key": 5}, {"key": None}, {"key": {"deep": "er"}}, {"key": True}, {"key": "v" * 513}],
    "custom_inputs": [5, "a", ["a"]],
    "custom_inputs.thread_id": [{"thread_id": value} for value in (["t"], {"t": 1}, 1.5, True, "t" * 513)],
    "context": [5, "a"],
    "context.conversation_id": [{"conversation_id": value} for value in (5, ["c"], "c" * 513)],
    "context.user_id": [{"user_id": 5}],
    "text.format": [{"format": value} for value in (5, "json_object", ["text"])],
    "text.format.type": [{"format": {"type": value}} for value in (None, 5, "xml", "x" * 100_000, ["text"], {})],
    "text.format.name": [
        {"format": {**SCHEMA, "name": value}} for value in (None, 5, "", "my answer", "x" * 65, "a\n", "é")
    ],
    "text.format.schema": [{"format": {**SCHEMA, "schema": value}} for value in (None, 5, "{}", [], True)],
    "text.format.strict": [{"format": {**SCHEMA, "strict": "yes"}}],
    "text.format.description": [{"format": {**SCHEMA, "description": 5}}],
    "tools": [5, "f", {"type": "function"}],
    "expire_queued_after_seconds": [0, 2**31, 2**63, 1.5],
    "tools[0]": [["f"]],
    "tools[0].type": [[{}], [{"type": 5}]],
    "tools[0].name": [[{"type": "function"}], [{"type": "function", "function": {"name": "f"}}]],
    "tool_choice": [5, "f", ["auto"]],
    "tool_choice.type": [{}, {"type": 5}],
    "tool_items": [5, "all", ["hidden"]],
    "parallel_tool_calls": ["true", 1],
    "temperature": ["0.5", True, -0.1, 2.1],
    "top_p": ["0.5", -0.1, 1.1],
    "presence_penalty": ["0.5", 3],
    "frequency_penalty": ["0.5", -3],
    "top_logprobs": ["1", 1.5, -1, 21],
    "max_output_tokens": ["1", 1.5, 0, -1],
    "max_tool_calls": ["1", 0],
    "text": [5, "text"],
    "reasoning": [5, "low"],
    "reasoning.effort": [{"effort": 1}],
    "truncation": [5, "none"],
    "service_tier": [5],
    "safety_identifier": [5],
    "prompt_cache_key": [5],
    "user": [5],
}


async def test_a_field_of_another_type_is_named(http: httpx.AsyncClient) -> None:
    for param, values in WRONG_FIELDS.items():
        for value in values:
            field = param.partition(".")[0].partition("[")[0]
            answer = await http.post("/v1/responses", json={"input": "hi", field: value})
            shown = "metadata.key" if param == "metadata.key" else param
            assert refused(answer, 400, param=shown), (param, value)


async def test_fields_beyond_counting_are_refused_but_an_agents_own_values_are_not_counted(
    http: httpx.AsyncClient,
) -> None:
    for field in ("tools", "metadata", "text"):
        many = {field: dict.fromkeys(map(str, range(100_001)), 1)}
        assert "more than 100000 values" in refused(
            await http.post("/v1/responses", json={"input": "hi"} | many), 400, param=field
        )
    refused(await http.post("/v1/responses", json=dict.fromkeys(map(str, range(100_001)), 1)), 400)
    table = {"input": "hi", "custom_inputs": {"table": [1] * 100_001}}
    assert (await http.post("/v1/responses", json=table)).json()["custom_outputs"]["body"] == table


async def test_a_conversation_and_a_previous_response_exclude_each_other(http: httpx.AsyncClient) -> None:
    both = {"input": "hi", "conversation": "c", "previous_response_id": NOBODY}
    refused(await http.post("/v1/responses", json=both), 400, param="previous_response_id")


async def test_an_unknown_previous_response_has_openais_code(http: httpx.AsyncClient) -> None:
    answer = await http.post("/v1/responses", json={"input": "hi", "previous_response_id": NOBODY})
    message = refused(answer, 400, param="previous_response_id", code="previous_response_not_found")
    assert message == f"Previous response with id '{NOBODY}' not found."


async def test_a_body_that_is_too_large_is_read_and_refused(http: httpx.AsyncClient) -> None:
    answer = await http.post("/v1/responses", json={"input": "x" * 20_000_000})
    assert "OUTLAST_MAX_REQUEST_BYTES" in refused(answer, 413, code="request_too_large")

    async def pieces():
        for _ in range(20):
            yield b"x" * 1_000_000

    refused(await http.post("/v1/responses", content=pieces()), 413, code="request_too_large")


async def test_unknown_fields_are_accepted_and_reach_the_agent(http: httpx.AsyncClient) -> None:
    asked = {
        "input": [{"role": "user", "content": [{"type": "input_text", "text": "hi", "mood": "good"}], "name": "me"}],
        "prompt": {"id": "p"}, "nested": {"list": [1, None, {"é": "\x00\u2028"}]}, "number": 2**63, "include": ["x"],
    }  # fmt: skip
    answer = await http.post("/v1/responses", json=asked)
    assert answer.json()["custom_outputs"]["body"] == asked


async def test_the_openai_client_raises_what_it_raises_for_openai(service: Service) -> None:
    responses = service.openai.responses
    with pytest.raises(openai.BadRequestError, match="input") as bad:
        await responses.create(input=5)  # type: ignore[arg-type]
    assert bad.value.param == "input" and bad.value.type == "invalid_request_error" and bad.value.request_id
    with pytest.raises(openai.NotFoundError, match="not found"):
        await responses.retrieve(NOBODY)
    with pytest.raises(openai.NotFoundError, match="not found"):
        await responses.cancel("resp_1")


HOSTILE_THREADS = [
    "'; DROP TABLE runs; --", '"', "\\", "%s %(x)s {0} $1", "../../etc/passwd", "<script>", "\u200f", "\u2065",
    "x" * 512, "\N{GRINNING FACE}" * 512, "null", "0",
]  # fmt: skip


async def test_no_way_to_name_a_conversation_takes_control_characters(http: httpx.AsyncClient) -> None:
    ways = {"conversation": as_itself, "custom_inputs.thread_id": as_thread, "context.conversation_id": as_context}
    for name in CONTROLLING:
        for param, form in ways.items():
            answer = await http.post("/v1/responses", json={"input": "hi", param.partition(".")[0]: form(name)})
            assert "control characters" in refused(answer, 400, param=param), (param, name)


async def test_a_conversation_that_has_such_a_name_can_be_read(
    service: Service, http: httpx.AsyncClient, database: Database
) -> None:
    stored = await submitted(database, thread="old\x1b[2J")
    assert (await http.get(f"/v1/responses/{response_id(stored.run_id)}")).json()["conversation"] == {
        "id": "old\x1b[2J"
    }


@pytest.mark.parametrize("where", [{"conversation": "c"}, {"custom_inputs": {"thread_id": "c"}}, {}])
async def test_an_empty_input_goes_on_with_what_is_there(http: httpx.AsyncClient, where: dict[str, Any]) -> None:
    if not where:
        first = await http.post("/v1/responses", json={"input": "hi"})
        where = {"previous_response_id": first.json()["id"]}
    answer = await http.post("/v1/responses", json={"input": []} | where)
    assert answer.json()["custom_outputs"]["body"] == {"input": []} | where


async def test_metadata_may_be_as_much_as_openais(http: httpx.AsyncClient) -> None:
    most = {f"{n:064}": "\N{GRINNING FACE}" * 512 for n in range(16)}
    answer = await http.post("/v1/responses", json={"input": "hi", "metadata": most})
    assert answer.json()["metadata"] == most


async def test_items_of_other_makes_reach_a_function_agent_as_they_came(http: httpx.AsyncClient) -> None:
    items: list[dict[str, Any]] = [
        {"type": "tool_search_call", "arguments": {"query": "x"}, "call_id": None, "execution": "server"},
        {"type": "custom_tool_call", "call_id": "c1", "name": "sh", "input": "ls"},
        {"type": "custom_tool_call_output", "call_id": "c1", "output": [{"type": "input_text", "text": "a.py"}]},
        {"type": "computer_call_output", "call_id": "c2", "output": {"type": "computer_screenshot", "file_id": "f"}},
        {"type": "additional_tools", "role": "developer", "tools": [{"type": "mcp"}]},
        {"type": "web_search_call", "id": "ws_1", "status": "completed", "action": {"type": "search"}},
        {"role": "user", "content": [{"type": "input_image", "file_id": "f"}, {"type": "x"}]},
    ]
    body = {"input": items, "tools": [{"type": "web_search"}, {"type": "odd"}], "tool_choice": {"type": "web_search"}}
    answer = await http.post("/v1/responses", json=body)
    assert answer.json()["custom_outputs"]["body"] == body


def test_every_type_of_openais_items_is_known() -> None:
    hints = (get_type_hints(kind)["type"] for kind in get_args(ResponseInputItemParam))
    literals = (hint if get_origin(hint) is Literal else get_args(hint)[0] for hint in hints)
    assert {name for literal in literals for name in get_args(literal)} == {*ITEM_TYPES, *OTHER_ITEM_TYPES}


async def test_any_other_text_names_a_conversation(http: httpx.AsyncClient) -> None:
    forms = (
        ("conversation", lambda name: name),
        ("conversation", lambda name: {"id": name}),
        ("custom_inputs", as_thread),
    )
    asked = [(name, {"input": "hi", field: form(name)}) for name in HOSTILE_THREADS for field, form in forms]
    answers = await asyncio.gather(*(http.post("/v1/responses", json=body) for _, body in asked))

    for (name, _), answer in zip(asked, answers, strict=True):
        assert answer.json()["conversation"] == {"id": name}
        assert answer.json()["custom_outputs"]["thread"] == name


def as_itself(name: str) -> str:
    return name


def as_context(name: str) -> dict[str, Any]:
    return {"conversation_id": name}


def as_thread(name: str) -> dict[str, Any]:
    return {"thread_id": name}


async def test_a_failure_of_our_own_says_nothing_but_its_id() -> None:
    app = FastAPI()
    errors.install(app)
    app.add_middleware(AnswerHeaders)

    @app.get("/broken")
    async def broken() -> None:
        raise ValueError("password=hunter2")

    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        answer = await client.get("/broken")

    assert answer.status_code == 500 and "hunter2" not in answer.text
    assert json.loads(answer.content)["error"]["type"] == "server_error"
    assert answer.headers["x-request-id"].startswith("req_")
