"""The assistant with a language model: the real client of an OpenAI-compatible endpoint, and an endpoint that says
what the test scripts. Through the graph alone, and through the whole service."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncGenerator, Generator
from pathlib import Path
from typing import Any

import pytest
from langchain_core.messages import AIMessageChunk, HumanMessage, ToolMessage

from examples.assistant import agent, describe
from outlast.agent import AgentError
from outlast.shared.settings import Settings
from tests.support.model_endpoint import (
    Call,
    Cut,
    ModelEndpoint,
    Part,
    Raw,
    Reasoning,
    Refusal,
    Stall,
    Text,
    Usage,
    model_endpoint,
)
from tests.support.service import Service, serving
from tests.support.waiting import until

KEY = "sk-a-key-that-nobody-may-see"
WEATHER: Any = {
    "type": "function",
    "name": "weather",
    "description": "The weather of a city.",
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
}


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "notes"
    path.mkdir()
    (path / "goats.md").write_text("# Goats\n\nGoats eat grass.\n")
    monkeypatch.setenv("ASSISTANT_FOLDER", str(path))
    return path


@pytest.fixture
def endpoint(monkeypatch: pytest.MonkeyPatch) -> Generator[ModelEndpoint]:
    """What the environment names as the language model."""
    with model_endpoint() as started:
        monkeypatch.setenv("OPENAI_BASE_URL", started.url)
        monkeypatch.setenv("OPENAI_API_KEY", KEY)
        monkeypatch.setenv("OPENAI_MODEL", "small")
        monkeypatch.setenv("ASSISTANT_RETRIES", "0")
        yield started


@pytest.fixture
async def service(settings: Settings, endpoint: ModelEndpoint) -> AsyncGenerator[Service]:
    async with serving(settings, {"assistant": agent}) as running:
        yield running


async def pieces_of(question: str) -> list[AIMessageChunk]:
    """What the graph alone streams of the model."""
    stream = agent().astream({"messages": [HumanMessage(question)]}, stream_mode="messages")
    return [piece async for piece, _ in stream if isinstance(piece, AIMessageChunk)]


async def test_the_answer_is_streamed_as_it_comes(endpoint: ModelEndpoint) -> None:
    endpoint.will(Text("Goats eat grass.", size=6), Usage(12, 4, cached_tokens=8, reasoning_tokens=2))

    pieces = await pieces_of("What do goats eat?")

    assert [piece.text for piece in pieces if piece.text] == ["Goats ", "eat gr", "ass."]
    [usage] = [piece.usage_metadata for piece in pieces if piece.usage_metadata]
    assert (usage["input_tokens"], usage["output_tokens"]) == (12, 4)
    [request] = endpoint.requests
    assert (request.path, request.headers["authorization"]) == ("/v1/chat/completions", f"Bearer {KEY}")
    assert (request.body["model"], request.body["stream"]) == ("small", True)
    assert request.roles == ["system", "user"]
    assert "notes/" in request.body["messages"][0]["content"]


async def test_a_model_learns_of_each_tool_what_it_is_for_and_what_it_takes(endpoint: ModelEndpoint) -> None:
    endpoint.will(Text("ok"))

    await pieces_of("hello")

    functions = {tool["function"]["name"]: tool["function"] for tool in endpoint.requests[0].body["tools"]}
    assert {name: list(each["parameters"]["properties"]) for name, each in functions.items()} == {
        "search": ["query"],
        "read": ["file", "first_line", "last_line"],
        "clock": ["timezone"],
        "calculator": ["expression"],
    }
    for each in functions.values():
        assert each["description"]
        assert all(argument["description"] for argument in each["parameters"]["properties"].values())


async def test_tools_are_run_until_the_model_answers(endpoint: ModelEndpoint) -> None:
    endpoint.will(
        Reasoning("Look it up."), Call("search", {"query": "goats"}), Call("calculator", {"expression": "6*7"})
    )
    endpoint.will(Call("read", {"file": "goats.md"}, call_id="call_read"))
    endpoint.will(Text("Grass [goats.md:3]."))

    state = await agent().ainvoke({"messages": [HumanMessage("What do goats eat, and 6*7?")]})

    assert state["messages"][-1].text == "Grass [goats.md:3]."
    found, counted, read = (each for each in state["messages"] if isinstance(each, ToolMessage))
    assert "goats.md:3 (lines 1-3)  Goats eat grass." in found.text
    assert counted.text == "42"
    assert "    3  Goats eat grass." in read.text
    told = endpoint.requests[2].body["messages"][-1]
    assert (told["role"], told["tool_call_id"], told["content"]) == ("tool", "call_read", read.text)


@pytest.mark.parametrize(
    ("call", "told"),
    [
        (Call("read", {"file": "../private.md"}), "outside notes/"),
        (Call("calculator", {"expression": "1/0"}), "division by zero"),
        (Call("read", {"first_line": 1}), "Field required"),
        (Call("shell", {"command": "ls"}), "shell is not a valid tool"),
    ],
)
async def test_what_a_tool_cannot_do_is_told_to_the_model(endpoint: ModelEndpoint, call: Call, told: str) -> None:
    endpoint.will(call)
    endpoint.will(Text("I see."))

    assert "".join(piece.text for piece in await pieces_of("hello")) == "I see."
    assert told in endpoint.requests[1].body["messages"][-1]["content"]


async def test_an_endpoint_that_is_busy_is_asked_again_when_it_says(
    endpoint: ModelEndpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ASSISTANT_RETRIES", "2")
    endpoint.will_refuse(429, retry_after="0.01")
    endpoint.will_refuse(503, retry_after="0.01")
    endpoint.will(Text("Here I am."))

    assert "".join(piece.text for piece in await pieces_of("hello")) == "Here I am."
    assert len(endpoint.requests) == 3


@pytest.mark.parametrize("passes", ["busy", "broken", "cut", "cut at once", "stall"])
async def test_a_step_whose_model_fails_for_now_is_tried_again_later(
    passes: str, settings: Settings, endpoint: ModelEndpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    if passes == "stall":
        monkeypatch.setenv("ASSISTANT_TIMEOUT_SECONDS", "2")  # short, but no answer of a busy machine takes as long
    failure, _ = FAILURES[passes]
    answers: list[Any] = [[Call("clock")], failure, [Text("Noon.")]]
    endpoint.otherwise = lambda _: answers.pop(0)
    brief = settings.model_copy(update={"retry_seconds": 0.01, "lease_seconds": 10.0})
    async with serving(brief, {"assistant": agent}) as service:
        response: Any = await service.openai.responses.create(input="What time is it?")

    assert (response.status, response.output_text, response.attempt_number) == ("completed", "Noon.", 2)
    assert [item.type for item in response.output] == ["mcp_call", "message"]


def without_retries(settings: Settings) -> Settings:
    return settings.model_copy(update={"max_retries": {"*": 0}})


FAILURES: dict[str, tuple[Refusal | tuple[Part, ...], str]] = {
    "wrong key": (Refusal(401, f"Incorrect API key provided: {KEY}"), "refused the key (HTTP 401)"),
    "forbidden": (Refusal(403), "refused the key (HTTP 403)"),
    "unknown model": (Refusal(404), "knows no such model or path (HTTP 404)"),
    "too long": (Refusal(400, KEY, "context_length_exceeded"), "answered with HTTP 400 (context_length_exceeded)"),
    "a code that is a secret": (Refusal(400, KEY, KEY), "answered with HTTP 400"),
    "busy": (Refusal(429, KEY), "takes no more requests for now (HTTP 429)"),
    "broken": (Refusal(500, KEY), "answered with HTTP 500"),
    "cut": ((Text("Goats"), Cut()), "could not be reached, or closed the connection"),
    "cut at once": ((Cut(),), "could not be reached, or closed the connection"),
    "nonsense": ((Text("Goats"), Raw("{no")), "sent something that is no answer"),
    "an error in the stream": (
        (Text("Goats"), Raw(f'{{"error": {{"message": "{KEY}"}}}}')),
        "sent something that is no answer",
    ),
    "stall": ((Text("Goats"), Stall()), "said nothing for too long"),
}


@pytest.mark.parametrize("failure", FAILURES)
async def test_a_failure_fails_the_run_with_words_that_are_safe(
    failure: str,
    settings: Settings,
    endpoint: ModelEndpoint,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    capsys: pytest.CaptureFixture[str],
) -> None:
    answer, reason = FAILURES[failure]
    endpoint.otherwise = lambda _: answer
    if failure == "stall":
        monkeypatch.setenv("ASSISTANT_TIMEOUT_SECONDS", "2")

    with caplog.at_level(logging.DEBUG):
        async with serving(without_retries(settings), {"assistant": agent}) as service:
            response = await service.openai.responses.create(input="What do goats eat?")
            replayed = await service.openai.responses.retrieve(response.id, stream=True)
            events = [event async for event in replayed]

    assert response.status == "failed"
    assert response.error is not None
    assert response.error.message == f"The language model's endpoint {reason}."
    assert events[-1].type == "response.failed"
    assert KEY not in str(events) + response.model_dump_json()
    assert KEY not in caplog.text + capsys.readouterr().out
    if isinstance(answer, tuple) and isinstance(answer[0], Text):
        assert "Goats" in response.output_text


async def test_an_endpoint_that_is_not_there_fails_the_run(endpoint: ModelEndpoint, settings: Settings) -> None:
    async with serving(without_retries(settings), {"assistant": agent}) as service:
        endpoint.close()
        response = await service.openai.responses.create(input="hello")

    assert response.error is not None
    assert response.error.message.endswith("could not be reached, or closed the connection.")


async def test_a_client_sees_tools_words_and_cost(service: Service, endpoint: ModelEndpoint) -> None:
    endpoint.will(Call("search", {"query": "goats"}), Call("clock"), Usage(10, 5))
    endpoint.will(Text("Grass [goats.md:3]."), Usage(30, 7, cached_tokens=8, reasoning_tokens=2))

    deltas: list[str] = []
    async with service.openai.responses.stream(model="assistant", input="What do goats eat?") as stream:
        async for event in stream:
            if event.type == "response.output_text.delta":
                deltas.append(event.delta)
        response = await stream.get_final_response()

    assert deltas == ["Gras", "s [g", "oats", ".md:", "3]."]
    assert sorted(item.type for item in response.output) == ["mcp_call", "mcp_call", "message"]
    assert response.output_text == "Grass [goats.md:3]."
    assert response.usage is not None
    assert (response.usage.input_tokens, response.usage.output_tokens) == (40, 12)
    assert response.usage.input_tokens_details.cached_tokens == 8
    assert response.usage.output_tokens_details.reasoning_tokens == 2


async def test_what_a_request_asks_of_the_model_reaches_its_endpoint(service: Service, endpoint: ModelEndpoint) -> None:
    endpoint.will(Text("ok"))

    await service.openai.responses.create(
        input="hello",
        instructions="Speak like a goat.",
        temperature=0.25,
        top_p=0.5,
        max_output_tokens=99,
        tools=[WEATHER],
        tool_choice={"type": "function", "name": "weather"},
    )

    [request] = endpoint.requests
    body = request.body
    assert (body["temperature"], body["top_p"], body["max_completion_tokens"]) == (0.25, 0.5, 99)
    assert request.tools == ["search", "read", "clock", "calculator", "weather"]
    assert body["tool_choice"] == {"type": "function", "function": {"name": "weather"}}
    systems = "".join(message["content"] for message in body["messages"] if message["role"] == "system")
    assert "Speak like a goat." in systems and "notes/" in systems


async def test_a_clients_own_function_is_called_by_the_client(service: Service, endpoint: ModelEndpoint) -> None:
    endpoint.will(Call("weather", {"city": "Rome"}, call_id="call_weather"))
    endpoint.will(Text("It rains."))

    asked = await service.openai.responses.create(input="And in Rome?", tools=[WEATHER])
    [call] = asked.output
    assert call.type == "function_call"
    assert (call.name, call.call_id, json.loads(call.arguments)) == ("weather", "call_weather", {"city": "Rome"})
    answered = await service.openai.responses.create(
        input=[{"type": "function_call_output", "call_id": call.call_id, "output": "rain"}],
        previous_response_id=asked.id,
        tools=[WEATHER],
    )

    assert answered.output_text == "It rains."
    last = endpoint.requests[1].body["messages"][-1]
    assert (last["role"], last["content"], last["tool_call_id"]) == ("tool", "rain", "call_weather")


async def test_a_conversation_is_remembered(service: Service, endpoint: ModelEndpoint) -> None:
    endpoint.otherwise = lambda request: [Text(f"{len(request.roles)} messages")]

    first = await service.openai.responses.create(input="one")
    second = await service.openai.responses.create(input="two", previous_response_id=first.id)

    assert (first.output_text, second.output_text) == ("2 messages", "4 messages")
    assert [m["content"] for m in endpoint.requests[1].body["messages"][1:]] == ["one", "2 messages", "two"]


async def test_a_cancelled_run_leaves_its_endpoint(service: Service, endpoint: ModelEndpoint) -> None:
    endpoint.will(Text("Goats"), Stall())
    response = await service.openai.responses.create(input="What do goats eat?", background=True)

    async def stalled() -> bool:
        return endpoint.stalled.is_set()

    await until(stalled)
    await service.openai.responses.cancel(response.id)

    async def status() -> bool:
        return (await service.openai.responses.retrieve(response.id)).status == "cancelled"

    await until(status)


async def test_databricks_is_asked_at_its_serving_endpoints_with_a_token_of_its_sdk(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with model_endpoint() as workspace:
        monkeypatch.setenv("HOME", str(tmp_path))  # no profile of the developer's
        monkeypatch.setenv("DATABRICKS_HOST", workspace.origin)
        monkeypatch.setenv("DATABRICKS_TOKEN", KEY)
        monkeypatch.setenv("DATABRICKS_MODEL", "large")
        workspace.will(Text("Grass."))

        assert describe() == "large on Databricks"
        assert "".join(piece.text for piece in await pieces_of("What do goats eat?")) == "Grass."

    [request] = workspace.requests
    assert (request.path, request.body["model"]) == ("/serving-endpoints/chat/completions", "large")
    assert request.headers["authorization"] == f"Bearer {KEY}"


def test_without_a_workspace_databricks_is_refused_in_words_that_are_safe(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("DATABRICKS_MODEL", "large")
    monkeypatch.setenv("DATABRICKS_CLIENT_ID", "somebody")
    monkeypatch.setenv("DATABRICKS_CLIENT_SECRET", KEY)
    with pytest.raises(AgentError, match="No Databricks workspace can be used") as refused:
        agent()
    assert KEY not in str(refused.value)


async def test_without_a_model_requests_that_ask_much_of_it_are_answered(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ASSISTANT_PACE_SECONDS", "0")
    asking: dict[str, Any] = {
        "instructions": "Be brief.", "temperature": 0.5, "max_output_tokens": 9, "tools": [WEATHER]
    }  # fmt: skip
    picture = {"type": "input_image", "image_url": "data:image/png;base64,AA=="}
    shown: Any = [{"role": "user", "content": [{"type": "input_text", "text": "6 * 7"}, picture]}]
    async with serving(settings, {"assistant": agent}) as service:
        create = service.openai.responses.create
        first = await create(input=shown, **asking)
        forced = await create(
            input="What do goats eat?",
            previous_response_id=first.id,
            tool_choice={"type": "function", "name": "weather"},
            **asking,
        )
        none = await create(input="8 * 9", tool_choice="none", **asking)
        many = await asyncio.gather(*(create(input=f"{n} * 2 and read goats.md") for n in range(40)))

    assert first.output_text == "Offline lookup (no language model): 6 * 7 = 42"
    assert forced.output_text.endswith("Goats eat grass. [goats.md:3]")
    assert "Ask about the files in notes/" in none.output_text
    for n, response in enumerate(many):
        assert f"{n} * 2 = {n * 2}\n\ngoats.md, lines 1-3 of 3:" in response.output_text
