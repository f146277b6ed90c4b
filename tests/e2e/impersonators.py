"""Agents that act as their user, and let slip with what in every way there is."""

from __future__ import annotations

import asyncio
import logging
from hashlib import sha256
from pathlib import Path

import structlog

from outlast.agent import AgentError, Context, Request, Retry, State, ToolCall, ToolResult

PACE_SECONDS = 0.02


def digest(token: str) -> str:
    return sha256(token.encode()).hexdigest()


def token_of(context: Context) -> str:
    return context.user_token.reveal() if context.user_token else "no token"


async def function(request: Request, context: Context):
    token = token_of(context)
    yield f"{context.attempt} {digest(token)} "
    match request.text.split():
        case ["say"]:
            yield token
            yield ToolCall("use", {"token": token}, "c1")
            yield ToolResult("c1", f"it is {token}")
            yield State({"token": token})
            await context.save(token=token)
            yield f"{context!r} {context.user_token}"
        case ["log"]:
            logging.getLogger("theirs").warning("%r %s", context, token)
            structlog.get_logger().warning("some.event", token=token, context=context, nested={"a": [token]})
        case ["raise"]:
            raise RuntimeError(token)
        case ["fail"]:
            raise AgentError(f"refused: {token}", code=token)
        case ["retry"]:
            raise Retry(f"later: {token}") from ConnectionError(token)
        case ["wait", file]:
            Path(file).touch()  # noqa: ASYNC240
            while not Path(file).with_suffix(".end").exists():
                await asyncio.sleep(PACE_SECONDS)
        case _:
            pass
