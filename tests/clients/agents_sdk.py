"""python agents_sdk.py URL AGENT stream|run: a conversation of two turns with a tool of the client's own.

A program of its own, for an environment that has the OpenAI Agents SDK.
"""

import asyncio
import json
import sys

from agents import Agent, OpenAIResponsesModel, Runner, function_tool, set_tracing_disabled  # pyright: ignore
from openai import AsyncOpenAI

executed = 0


@function_tool
def get_weather(city: str) -> str:
    """Tells the weather."""
    global executed
    executed += 1
    return f"3 degrees in {city}"


async def ask(agent: Agent, question: list, *, stream: bool):
    if not stream:
        return await Runner.run(agent, question, max_turns=3)
    result = Runner.run_streamed(agent, question, max_turns=3)
    async for _ in result.stream_events():
        pass
    return result


async def main(url: str, model: str, mode: str) -> None:
    set_tracing_disabled(True)
    client = AsyncOpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0)
    agent = Agent(name="a", model=OpenAIResponsesModel(model=model, openai_client=client), tools=[get_weather])
    stream = mode == "stream"
    first = await ask(agent, [{"role": "user", "content": "What is the weather?"}], stream=stream)
    again = [*first.to_input_list(), {"role": "user", "content": "And now?"}]
    second = await ask(agent, again, stream=stream)
    answers = [first.final_output, second.final_output]
    print(json.dumps({"answers": answers, "executed": executed, "sent": [item.get("type") for item in again]}))


asyncio.run(main(*sys.argv[1:]))
