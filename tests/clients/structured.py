"""python structured.py URL AGENT: the same answer of a schema, as each client reads it; prints one JSON object.

A program of its own, for an environment that has these clients.
"""

import asyncio
import json
import sys

from agents import Agent, OpenAIResponsesModel, Runner, set_tracing_disabled  # pyright: ignore
from openai import AsyncOpenAI
from pydantic import BaseModel
from pydantic_ai import Agent as PydanticAgent, NativeOutput  # pyright: ignore
from pydantic_ai.models.openai import OpenAIResponsesModel as PydanticModel  # pyright: ignore
from pydantic_ai.providers.openai import OpenAIProvider  # pyright: ignore

QUESTION = "How warm is it in Oslo?"


class City(BaseModel):
    city: str
    degrees: int


async def agents(client: AsyncOpenAI, model: str) -> City:
    agent = Agent(name="a", model=OpenAIResponsesModel(model=model, openai_client=client), output_type=City)
    return (await Runner.run(agent, QUESTION)).final_output


async def agents_streamed(client: AsyncOpenAI, model: str) -> City:
    agent = Agent(name="a", model=OpenAIResponsesModel(model=model, openai_client=client), output_type=City)
    result = Runner.run_streamed(agent, QUESTION)
    async for _ in result.stream_events():
        pass
    return result.final_output


async def pydantic_ai(client: AsyncOpenAI, model: str) -> City:
    provider = OpenAIProvider(openai_client=client)
    agent = PydanticAgent(PydanticModel(model, provider=provider), output_type=NativeOutput(City))
    return (await agent.run(QUESTION)).output


async def main(url: str, model: str) -> None:
    set_tracing_disabled(True)
    client = AsyncOpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0)
    ways = (agents, agents_streamed, pydantic_ai)
    print(json.dumps({way.__name__: (await way(client, model)).model_dump() for way in ways}))


asyncio.run(main(*sys.argv[1:]))
