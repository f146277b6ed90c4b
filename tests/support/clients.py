"""What clients of other makes talk to: agents whose answers show what reached them."""

from __future__ import annotations

import asyncio
import json
import re
from collections import Counter
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from langchain.agents import create_agent
from langchain_openai import ChatOpenAI
from pydantic import SecretStr

from outlast.agent import ClientCall, Context, Reasoning, Request, ToolCall, ToolResult
from outlast.shared.connections import Database
from outlast.shared.settings import Settings
from tests.support.log import stored_lines
from tests.support.model_endpoint import Call, ModelEndpoint, Request as ModelRequest, Text, Usage, model_endpoint
from tests.support.runs import take_first_attempts_over
from tests.support.service import serving
from tests.support.waiting import until

FIRST = "3 degrees."
SECOND = "3 degrees. Before: 3 degrees."
ASKED_FIRST = "You say 3 degrees in Oslo."
ASKED_SECOND = "You say 3 degrees in Oslo. Before: You say 3 degrees in Oslo."


@dataclass
class Weather:
    """The server that clients are tried on."""

    url: str = ""
    started: Counter[str] = field(default_factory=Counter[str])
    """How often each agent was run; another attempt is another time."""


@dataclass(frozen=True)
class Forming:
    """A server that answers in the form which is asked for, and the endpoint of its model."""

    url: str
    endpoint: ModelEndpoint


def before(request: Request) -> str:
    """What the conversation has answered so far, as far as it came along."""
    said = [text for item in request.input if (text := _answer(item))]
    return f" Before: {' '.join(said)}" if said else ""


def _answer(item: Mapping[str, Any]) -> str:
    if item.get("type", "message") != "message" or item.get("role") != "assistant":
        return ""
    content = item["content"]
    return content if isinstance(content, str) else "".join(part.get("text", "") for part in content)


async def weather(request: Request, _context: Context):
    """Runs its own tool, whose name is that of a tool of the client's."""
    yield Reasoning("The tool knows.")
    yield ToolCall("get_weather", {"city": "Oslo"}, "c1")
    yield ToolResult("c1", "3 degrees")
    for piece in re.findall(r"\s*\S+", FIRST + before(request)):
        yield piece


async def asking(request: Request, context: Context):
    """Asks the client to run its tool, and answers with what that says."""
    newest = request.input[-1]
    if newest.get("type") != "function_call_output":
        yield ClientCall("get_weather", {"city": "Oslo"}, f"call_{context.response_id}")
        return
    yield f"You say {newest['output']}.{before(request)}"


OSLO = {"city": "Oslo", "degrees": 3}


@asynccontextmanager
async def forming_service(settings: Settings) -> AsyncGenerator[Forming]:
    """Serves `city`: a graph that calls a tool, and whose model answers with `OSLO` if it is asked for a schema."""

    def answer(request: ModelRequest) -> list[Text | Call | Usage]:
        if request.roles[-1] != "tool":
            return [Call("look", {"city": "Oslo"}), Usage(12, 4)]
        asked = request.body.get("response_format", {}).get("json_schema", {}).get("schema", {})
        return [Text(json.dumps(OSLO) if "degrees" in asked.get("properties", {}) else "3 degrees."), Usage(20, 8)]

    def look(city: str) -> str:
        """Look out of the window."""
        return "3 degrees"

    with model_endpoint() as endpoint:
        endpoint.otherwise = answer
        model = ChatOpenAI(model="small", base_url=endpoint.url, api_key=SecretStr("none"), max_retries=0)
        async with serving(settings, {"city": create_agent(model, [look])}) as service:
            yield Forming(service.url, endpoint)


@asynccontextmanager
async def weather_service(settings: Settings, database: Database) -> AsyncGenerator[Weather]:
    """Serves `weather`, `asking`, and `lost`: `weather` whose first attempt is taken over within a wrong answer."""
    served = Weather()

    async def lost(request: Request, context: Context):
        if context.attempt == 1:
            yield Reasoning("Guess.")
            yield ToolCall("get_weather", {"city": "Oslo"}, "c1")
            yield ToolResult("c1", "99 degrees")
            yield "99 deg"

            async def told() -> bool:
                return "99 deg" in "".join(await stored_lines(database, context.response_id))[-1000:]

            await until(told)
            await take_first_attempts_over(database)
            await asyncio.Event().wait()
        async for emission in weather(request, context):
            yield emission

    def counted(agent: Any):
        async def counting(request: Request, context: Context):
            served.started[agent.__name__] += 1
            async for emission in agent(request, context):
                yield emission

        return counting

    agents = {agent.__name__: counted(agent) for agent in (weather, asking, lost)}
    async with serving(settings, agents) as service:
        served.url = service.url
        yield served
