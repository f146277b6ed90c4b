"""What a make of model can be told."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from langchain_core.language_models import BaseChatModel


def is_openai(model: BaseChatModel) -> bool:
    """Tell whether it is langchain-openai's, or made of it."""
    return any(kind.__name__ == "BaseChatOpenAI" for kind in type(model).__mro__)


def speaks_responses(model: Any, given: Mapping[str, Any]) -> bool:
    """Tell whether a call with these options goes to a Responses API, rather than to chat completions."""
    return is_openai(model) and bool(model._use_responses_api({**model.model_kwargs, **given}))


def takes_file_urls(model: BaseChatModel, given: Mapping[str, Any]) -> bool:
    """Tell whether a call may have files by their URLs: chat completions have no word for it."""
    return not is_openai(model) or speaks_responses(model, given)


def has_field(model: BaseChatModel, name: str) -> bool:
    """Tell whether its class has such an option: each call can be given it too."""
    return name in type(model).model_fields


def binds_calls_one_by_one(model: BaseChatModel) -> bool:
    """Tell whether it can be told to call one tool at a time."""
    return "parallel_tool_calls" in inspect.signature(type(model).bind_tools).parameters
