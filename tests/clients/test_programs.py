"""Clients of other makes, each in a program of its own: the answers they arrive at, and whose tools they run.

`make test-clients` installs them and runs this; `make test` does not.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import pytest

from outlast.shared.connections import Database
from outlast.shared.settings import Settings
from tests.support.clients import (
    ASKED_FIRST,
    ASKED_SECOND,
    FIRST,
    OSLO,
    SECOND,
    Forming,
    Weather,
    forming_service,
    weather_service,
)
from tests.support.processes import ROOT
from tests.support.takeovers import Telling

INSTALLED = ROOT / ".outlast/clients"
SECONDS = 60
INTERRUPTED = 200

pytestmark = pytest.mark.skipif("TEST_CLIENTS" not in os.environ, reason="make test-clients")
needs_node = pytest.mark.skipif(shutil.which("node") is None, reason="there is no node here")


@pytest.fixture
async def served(settings: Settings, database: Database) -> AsyncGenerator[Weather]:
    async with weather_service(settings, database) as running:
        yield running


@pytest.fixture
async def forming(settings: Settings) -> AsyncGenerator[Forming]:
    async with forming_service(settings) as running:
        yield running


async def run(*command: str | Path) -> dict[str, Any]:
    """What a program prints, which is one JSON object."""
    process = await asyncio.create_subprocess_exec(
        *command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    try:
        out, err = await asyncio.wait_for(process.communicate(), SECONDS)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode == 0, err.decode()[-3000:]
    return json.loads(out)


async def node(program: str, *arguments: str) -> dict[str, Any]:
    """Node finds packages beside the program, so it is put there."""
    there = INSTALLED / "node" / f"{os.getpid()}-{program}"
    there.write_bytes((ROOT / "tests/clients/node" / program).read_bytes())
    try:
        return await run("node", there, *arguments)
    finally:
        there.unlink()


@needs_node
@pytest.mark.parametrize("mode", ["stream", "generate"])
async def test_the_ai_sdk_leaves_the_servers_tools_to_the_server(served: Weather, mode: str) -> None:
    found = await node("ai_sdk.mjs", served.url, "weather", mode)

    assert found["answers"] == [FIRST, SECOND]
    assert (found["executed"], found["finish"], found["steps"]) == (0, ["stop"] * 2, [1, 1])
    assert found["sent"][1].count("item_reference") >= 2
    assert served.started == {"weather": 2}


@needs_node
@pytest.mark.parametrize("mode", ["stream", "generate"])
async def test_the_ai_sdk_answers_a_call_that_is_its_own(served: Weather, mode: str) -> None:
    found = await node("ai_sdk.mjs", served.url, "asking", mode)

    assert found["answers"] == [ASKED_FIRST, ASKED_SECOND]
    assert (found["executed"], found["steps"]) == (2, [2, 2])
    assert served.started == {"asking": 4}


@needs_node
async def test_the_ai_sdk_may_send_back_what_was_superseded(served: Weather) -> None:
    """It shows a superseded text before the new one, as every client does that adds deltas up; the server knows."""
    found = await node("ai_sdk.mjs", served.url, "lost", "stream")

    assert found["answers"] == [f"99 deg{FIRST}", f"99 deg{SECOND}"]
    assert (found["executed"], found["steps"]) == (0, [1, 1])
    assert served.started == {"lost": 4}


@needs_node
@pytest.mark.parametrize("agent", ["weather", "asking", "lost"])
async def test_openais_node_client_puts_together_what_is_stored(served: Weather, agent: str) -> None:
    found = await node("openai_sdk.mjs", served.url, agent)
    streamed, replayed = found["streamed"], found["replayed"]

    assert streamed == replayed
    assert (streamed["text"], streamed["items"]) == (found["stored"]["text"], found["stored"]["items"])
    assert streamed["text"] == ("" if agent == "asking" else FIRST)
    assert streamed["numbers"] == list(range(len(streamed["numbers"])))
    assert found["rest"] == streamed["numbers"][6:]


@needs_node
async def test_openais_node_client_puts_together_streams_that_were_interrupted_anywhere(tmp_path: Path) -> None:
    """As `tests/unit/test_continued_streams.py` asks of the one for Python."""
    streams = tmp_path / "streams"
    told = [await Telling(seed).story() for seed in range(INTERRUPTED)]
    streams.write_text("\n".join(f"[{','.join(story.lines)}]" for story in told))

    assert await node("streams.mjs", str(streams)) == {"streams": INTERRUPTED, "wrong": []}


@pytest.mark.parametrize("mode", ["stream", "run"])
@pytest.mark.parametrize("agent", ["weather", "lost"])
async def test_the_agents_sdk_leaves_the_servers_tools_to_the_server(served: Weather, agent: str, mode: str) -> None:
    found = await agents_sdk(served.url, agent, mode)

    assert (found["answers"], found["executed"]) == ([FIRST, SECOND], 0)
    assert "mcp_call" in found["sent"]
    assert served.started == {agent: 2 if agent == "weather" else 4}


@pytest.mark.parametrize("mode", ["stream", "run"])
async def test_the_agents_sdk_answers_a_call_that_is_its_own(served: Weather, mode: str) -> None:
    found = await agents_sdk(served.url, "asking", mode)

    assert (found["answers"], found["executed"]) == ([ASKED_FIRST, ASKED_SECOND], 2)


@needs_node
async def test_clients_of_node_read_an_answer_of_their_schema(forming: Forming) -> None:
    found = await node("structured.mjs", forming.url, "city")

    ways = ("parse", "stream", "langchain", "agents", "generateObject", "generateText", "streamText")
    assert found == dict.fromkeys(ways, OSLO)


async def test_clients_of_python_read_an_answer_of_their_schema(forming: Forming) -> None:
    program = ROOT / "tests/clients/structured.py"
    found = await run(INSTALLED / "python/bin/python", program, forming.url, "city")

    assert found == dict.fromkeys(("agents", "agents_streamed", "pydantic_ai"), OSLO)


async def agents_sdk(*arguments: str) -> dict[str, Any]:
    return await run(INSTALLED / "python/bin/python", ROOT / "tests/clients/agents_sdk.py", *arguments)
