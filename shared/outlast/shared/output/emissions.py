"""What the fields of an emission may hold."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from outlast.agent import AgentError, Approval, ClientCall, ToolCall, ToolResult, Usage
from outlast.shared.domain.responses import usage_object
from outlast.shared.wire import clean, clean_within, from_json, to_json

KINDS = {"Text": "message", "Refusal": "refusal", "Reasoning": "reasoning"}
"""What pieces of each become, in the words of `items.kind_of`."""


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


_ANNOTATIONS = {
    "url_citation": {"url": str, "title": str},
    "file_citation": {"file_id": str, "filename": str, "index": int},
    "container_file_citation": {"container_id": str, "file_id": str, "filename": str},
    "file_path": {"file_id": str, "index": int},
}
"""The API's, with what each must have beside a place in the text."""


def annotation(given: Mapping[str, Any]) -> dict[str, Any]:
    """As it was given, if clients can read it."""
    values = snapshot(given)
    needed = _ANNOTATIONS.get(values.get("type") or "")
    if needed is None:
        raise EmissionError(f"An annotation's type is one of {', '.join(_ANNOTATIONS)}, not {values.get('type')!r}.")
    for name, kind in (needed | {name: int for name in ("start_index", "end_index") if name in values}).items():
        if type(values.get(name)) is not kind:
            raise EmissionError(f"The {name} of a {values['type']} must be {kind.__name__}.")
    return values


def arguments(given: Mapping[str, Any] | str) -> str:
    return clean(given) if isinstance(given, str) else to_json(snapshot(given))


def snapshot(values: Mapping[str, Any]) -> dict[str, Any]:
    """The values as plain JSON, whatever the agent does to them later; checked as deep as they will lie in an event."""
    try:
        plain = {"response": {"values": dict(values)}}
        try:
            kept = to_json(plain)
        except TypeError:  # for lone surrogates, perhaps: they are as rare as they are costly to look for
            kept = to_json(clean_within(plain))
        return from_json(kept)["response"]["values"]
    except (TypeError, ValueError, RecursionError) as error:
        raise EmissionError(f"A value cannot be kept as JSON: {error}.") from None


def called(call: ToolCall) -> ToolCall:
    """A call of the agent's own, as it will be told."""
    name, call_id = text(call.name, "ToolCall.name"), text(call.call_id, "ToolCall.call_id")
    return ToolCall(name, arguments(call.arguments), call_id)


def held(call: ClientCall | Approval) -> ClientCall | Approval:
    """A call that is held back, as it will be told."""
    kind = type(call).__name__
    name, given = text(call.name, f"{kind}.name"), arguments(call.arguments)
    if isinstance(call, ClientCall):
        return ClientCall(name, given, text(call.call_id, "ClientCall.call_id"))
    return Approval(name, given, text(call.approval_id, "Approval.approval_id"))


def held_id(call: ClientCall | Approval) -> tuple[type, str]:
    """What no two calls that are held back may share."""
    return type(call), call.call_id if isinstance(call, ClientCall) else call.approval_id


def answered(result: ToolResult) -> tuple[str, str, str | None]:
    """A tool's result, as it will be told: the id of its call, the output, and the error."""
    error = None if result.error is None else text(result.error, "ToolResult.error")
    return text(result.call_id, "ToolResult.call_id"), text(result.output, "ToolResult.output"), error
