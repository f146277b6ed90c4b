"""A language model behind an OpenAI-compatible endpoint, and what a client is told when it fails. Extra: openai."""

from __future__ import annotations

import importlib
import re
from collections.abc import Awaitable, Callable
from json import JSONDecodeError
from typing import Any

import openai
from langchain.agents.middleware import ModelRequest, ModelResponse, wrap_model_call
from langchain_openai import ChatOpenAI

from outlast.agent import AgentError, Retry

from .settings import Databricks, Endpoint, Settings

__all__ = ["chat_model", "tell_failures"]

CONNECT_SECONDS = 10.0

_PASSING = (openai.APIConnectionError, openai.InternalServerError, openai.RateLimitError, OSError)
_CODE = re.compile(r"[a-z][a-z_]{0,60}")


def chat_model(settings: Settings) -> ChatOpenAI:
    """Waits ``timeout_seconds`` at most for each piece, not for the whole answer, which may take long."""
    timeout = openai.Timeout(settings.timeout_seconds, connect=min(CONNECT_SECONDS, settings.timeout_seconds))
    return ChatOpenAI(
        **_address(settings.model),
        timeout=timeout,
        stream_chunk_timeout=settings.timeout_seconds,  # an endpoint may send comments instead of pieces
        max_retries=settings.retries,
        stream_usage=True,  # LangChain asks OpenAI only
    )


def _address(model: Any) -> dict[str, Any]:
    match model:
        case Endpoint(name, base_url, api_key):
            return {"model": name, "base_url": base_url, "api_key": api_key}
        case Databricks(name):
            workspace = importlib.import_module("outlast.databricks").Workspace()
            return {"model": name, "base_url": workspace.base_url, "api_key": workspace.token}
        case _:
            raise AssertionError(model)


@wrap_model_call
async def tell_failures(
    request: ModelRequest, handler: Callable[[ModelRequest], Awaitable[ModelResponse]]
) -> ModelResponse:
    """Fail the run, or have it tried again, with what its client may know: the endpoint's own words may hold a key."""
    try:
        return await handler(request)
    except (openai.OpenAIError, OSError, TimeoutError, JSONDecodeError) as error:
        words = f"The language model's endpoint {_failure(error)}."
        if isinstance(error, _PASSING):
            raise Retry(words, code="model_error") from error
        raise AgentError(words, code="model_error") from None


def _failure(error: Exception) -> str:
    match error:
        case openai.AuthenticationError() | openai.PermissionDeniedError():
            return f"refused the key (HTTP {error.status_code})"
        case openai.NotFoundError():
            return "knows no such model or path (HTTP 404)"
        case openai.RateLimitError():
            return "takes no more requests for now (HTTP 429)"
        case openai.APIStatusError(code=str(code)) if _CODE.fullmatch(code):
            return f"answered with HTTP {error.status_code} ({code})"
        case openai.APIStatusError():
            return f"answered with HTTP {error.status_code}"
        case openai.APITimeoutError() | TimeoutError():
            return "said nothing for too long"
        case openai.APIConnectionError() | OSError():
            return "could not be reached, or closed the connection"
        case _:
            return "sent something that is no answer"
