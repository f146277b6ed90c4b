"""What messages say, as emissions, and where they are."""

from __future__ import annotations

import hashlib
import json
import uuid
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any, cast

from langchain_core.messages import AIMessage, BaseMessage, ToolMessage, convert_to_messages
from langgraph.constants import TAG_NOSTREAM
from langgraph.types import Command
from pydantic_core import to_jsonable_python

from outlast.agent import Annotation, Reasoning, Refusal, Text, Usage

from .citations import annotations_in

_HIDDEN = {TAG_NOSTREAM, "nostream", "langsmith:nostream"}  # LangGraph's tag, under its names of several releases


def is_hidden(*tags: Collection[str] | None) -> bool:
    """Tell whether a model with these tags is not to be heard."""
    return not _HIDDEN.isdisjoint(tag for given in tags for tag in given or ())


def pieces(message: AIMessage, key: str) -> Iterator[Text | Annotation | Refusal | Reasoning]:
    """What a message says, or a chunk of one."""
    if isinstance(message.content, str) and "reasoning_content" not in message.additional_kwargs:
        yield Text(message.content, key)
        if refusal := message.additional_kwargs.get("refusal"):
            yield Refusal(refusal, key)
        return
    said = 0
    for block in message.content_blocks:  # LangChain's own form of every provider's content
        if block["type"] == "text":
            yield Text(block["text"], key)
            yield from (Annotation(found, key) for found in annotations_in(cast("Any", block), said))
            said += len(block["text"])
        elif block["type"] == "reasoning":
            yield Reasoning(block.get("reasoning") or "", key)
        elif block["type"] == "non_standard" and block["value"].get("type") == "refusal":
            yield Refusal(block["value"].get("refusal") or "", key)


def usage(message: BaseMessage) -> Usage | None:
    """Tokens spent on a message, where the provider tells."""
    counted = message.usage_metadata if isinstance(message, AIMessage) else None
    if not counted:
        return None
    return Usage(
        input_tokens=counted["input_tokens"],
        output_tokens=counted["output_tokens"],
        cached_tokens=counted.get("input_token_details", {}).get("cache_read") or 0,
        reasoning_tokens=counted.get("output_token_details", {}).get("reasoning") or 0,
    )


def text_of(message: AIMessage) -> str:
    """The text of a message, as `pieces` tell it."""
    return "".join(piece.delta for piece in pieces(message, "") if isinstance(piece, Text))


def output_of(message: ToolMessage) -> str:
    """What a tool returned: its text, or the JSON of what is not only text."""
    content: Any = message.content
    if isinstance(content, str):
        return content
    texts = [part if isinstance(part, str) else part.get("text") for part in content]
    return "".join(texts) if all(isinstance(text, str) for text in texts) else json.dumps(content, default=str)


def result_of(message: ToolMessage) -> tuple[str, str]:
    """What came of a call: ``success`` or ``error``, and the output."""
    return message.status, output_of(message)


def calls_of(message: AIMessage) -> list[dict[str, Any]]:
    """The tool calls of a message: name, id, and the arguments, which are text where they are no JSON object."""
    if not message.invalid_tool_calls:
        return cast("list[dict[str, Any]]", message.tool_calls)
    invalid = [
        {"name": call["name"] or "", "args": call["args"] or "", "id": call["id"]}
        for call in message.invalid_tool_calls
    ]
    return [*cast("list[dict[str, Any]]", message.tool_calls), *invalid]


def wire_call_ids(message: AIMessage) -> list[str]:
    """What clients know the calls of a message by: the model's ids, but for those that are empty or come again."""
    told: list[str] = []
    for number, call in enumerate(calls_of(message)):
        label = call["id"] or ""
        own = bool(label) and label not in told
        told.append(label if own else own_call_id(id_of(message), number))
    return told


def own_call_id(message_id: str, number: int) -> str:
    """An id of ours for this call of a message, the same whenever it is asked for."""
    return f"call_{hashlib.sha256(f'{message_id}:{number}'.encode()).hexdigest()[:24]}"


def arguments_of(text: str) -> Any:
    """The arguments of a call from their JSON; the text itself where it is none."""
    try:
        return json.loads(text)
    except ValueError:
        return text


def id_of(message: BaseMessage) -> str:
    """The message's id; one that has none is given one, which the graph's state will then keep."""
    if message.id is None:
        message.id = str(uuid.uuid4())
    return message.id


def messages_in(value: Any, depth: int = 3) -> Iterator[BaseMessage]:
    """The messages in what a node is given, or in what it returns."""
    match value:
        case BaseMessage():
            yield value
        case Command():
            yield from messages_in(value.update, depth)
        case Mapping() if depth:
            for name, inner in cast("Mapping[str, Any]", value).items():
                yield from messages_in(_whole(inner) if name == "messages" else inner, depth - 1)
        case list() | tuple() if depth:
            for inner in cast("Sequence[Any]", value):
                yield from messages_in(inner, depth - 1)
        case _ if hasattr(value, "messages"):  # a state that is a class of its own
            yield from messages_in(value.messages, depth)
        case _:
            return


def values_in(result: Any) -> dict[str, Any]:
    """What of a node's result is for the response's ``custom_outputs``."""
    match result:
        case Command():
            return values_in(result.update)
        case list() | tuple():
            several = cast("Sequence[Any]", result)
            if len(several) == 2 and isinstance(several[0], str):  # how a Command may write an update
                return values_in({several[0]: several[1]})
            return {name: value for inner in several for name, value in values_in(inner).items()}
        case Mapping():
            written = cast("Mapping[str, Any]", result)
            outputs, structured = written.get("custom_outputs"), written.get("structured_response")
        case _:
            outputs, structured = getattr(result, "custom_outputs", None), getattr(result, "structured_response", None)
    values: dict[str, Any] = as_json(outputs) if isinstance(outputs, dict) else {}
    return values if structured is None else {**values, "structured_response": as_json(structured)}


def as_json(value: Any) -> Any:
    """Return a value as JSON can hold it: numbers that are none as null, and as text what it has no form for."""
    return to_jsonable_python(value, fallback=str, inf_nan_mode="null", bytes_mode="base64")


def _whole(messages: Any) -> Any:
    """Messages that are still written as dicts or pairs, as messages."""
    if isinstance(messages, list):
        several = cast("list[Any]", messages)
        if any(isinstance(message, dict | tuple) for message in several):
            return convert_to_messages(several)
    return cast("Any", messages)
