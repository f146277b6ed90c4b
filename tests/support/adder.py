"""A graph's agent that adds, fails and asks for the weather, and what its answers look like."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.tools import tool

from outlast.shared.settings import Settings

from .graphs import call, last_human, tool_results
from .service import serving


@tool
def add(a: int, b: int) -> str:
    """Add two numbers."""
    return str(a + b)


@tool
def fail() -> str:
    """Fail."""
    raise ValueError("no such thing")


def rule(messages: Sequence[BaseMessage], options: dict[str, Any]) -> AIMessage:
    """Adds when asked to, asks the client for the weather, and says what it was told otherwise."""
    if results := tool_results(messages):
        return AIMessage(f"I was told {', '.join(results)}.")
    asked = last_human(messages)
    calls = [call("add", "call_add", a=2, b=3)] if "add" in asked else []
    calls += [call("fail", "call_fail")] if "fail" in asked else []
    calls += [call("get_weather", "call_weather", city="Rome")] if "weather" in asked else []
    if calls:
        return AIMessage("Let me see.", tool_calls=calls, usage_metadata=USAGE)
    return AIMessage(f"You said {asked}.", usage_metadata=USAGE)


USAGE: Any = {
    "input_tokens": 5, "output_tokens": 7, "total_tokens": 12,
    "input_token_details": {"cache_read": 2}, "output_token_details": {"reasoning": 3},
}  # fmt: skip


def summary(response: Any) -> list[str]:
    """The items of a response, one line each."""
    lines: list[str] = []
    for item in response.output:
        match item.type:
            case "message":
                lines.append(item.content[0].text)
            case "mcp_call":
                lines.append(f"{item.name}({item.arguments}) -> {item.output or item.error}")
            case "reasoning":
                lines.append(f"reasoning: {item.summary[0].text}")
            case _:
                lines.append(f"{item.type} {item.name}({item.arguments}) {item.call_id}")
    return lines


async def ask(settings: Settings, graph: object, **request: Any) -> Any:
    """The response to one request, `hello` if it says nothing else."""
    given: dict[str, Any] = {"input": "hello"} | request
    async with serving(settings, {"graph": graph}) as service:
        return await service.openai.responses.create(**given)
