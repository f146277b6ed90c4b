"""What the fields of an emission may hold."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from outlast.agent import AgentError, Usage
from outlast.shared.domain.responses import usage_object
from outlast.shared.wire import clean, from_json, to_json


class EmissionError(AgentError):
    """The agent emitted something that has no meaning."""

    def __init__(self, message: str) -> None:
        super().__init__(message, code="invalid_emission")


def added(a: Usage, b: Usage) -> Usage:
    for count in (b.input_tokens, b.output_tokens, b.cached_tokens, b.reasoning_tokens):
        if type(count) is not int or not 0 <= count < 2**53:
            raise EmissionError(f"Usage counts tokens: {count!r} is not a number of them.")
    return Usage(
        a.input_tokens + b.input_tokens,
        a.output_tokens + b.output_tokens,
        a.cached_tokens + b.cached_tokens,
        a.reasoning_tokens + b.reasoning_tokens,
    )


def counted(usage: Usage) -> dict[str, Any]:
    """As the Responses API shows it."""
    return usage_object(usage.input_tokens, usage.output_tokens, usage.cached_tokens, usage.reasoning_tokens)


def usage_from(counted: Mapping[str, Any]) -> Usage:
    return Usage(
        counted["input_tokens"],
        counted["output_tokens"],
        counted["input_tokens_details"]["cached_tokens"],
        counted["output_tokens_details"]["reasoning_tokens"],
    )


def text(value: object, name: str) -> str:
    """The value, if it is text, as UTF-8 can hold it."""
    if not isinstance(value, str):
        raise EmissionError(f"{name} must be str, not {type(value).__name__}.")
    return clean(value)


def key(value: object, name: str) -> str | None:
    return None if value is None else text(value, name)


def arguments(given: Mapping[str, Any] | str) -> str:
    return clean(given) if isinstance(given, str) else to_json(snapshot(given))


def snapshot(values: Mapping[str, Any]) -> dict[str, Any]:
    """The values as plain JSON, whatever the agent does to them later; checked as deep as they will lie in an event."""
    try:
        return from_json(to_json({"response": {"values": dict(values)}}))["response"]["values"]
    except (TypeError, ValueError) as error:
        raise EmissionError(f"A value cannot be kept as JSON: {error}.") from None
