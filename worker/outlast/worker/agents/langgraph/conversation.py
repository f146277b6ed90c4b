"""From the items of a request to the messages of a graph. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, cast

from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, SystemMessage, ToolMessage

from outlast.shared.domain.graph_requests import are_parts

NOT_ANSWERED = "This call was not carried out. Call the tool again if its result is still needed."
OUTPUT = "-output"  # a call and its result are one item, and two messages


def to_messages(items: Sequence[Mapping[str, Any]], ids: str) -> list[BaseMessage]:
    """The messages that items of the Responses API stand for. Reasoning, and what only clients know, has none.

    A message without an id of its own gets one that begins with ``ids`` and is the same whenever this is done again.
    """
    messages: list[BaseMessage] = []
    for number, item in enumerate(items):
        for message in _from_item(item):
            last = messages[-1] if messages else None
            if _only_calls(message) and isinstance(last, AIMessage) and isinstance(message, AIMessage):
                last.tool_calls += message.tool_calls  # what a model says and calls at once is one message of it
                continue
            message.id = item.get("id") or f"{ids}-{number}"
            if isinstance(message, ToolMessage):
                message.id = f"{message.id}{OUTPUT}"
            messages.append(message)
    return messages


def _only_calls(message: BaseMessage) -> bool:
    return isinstance(message, AIMessage) and bool(message.tool_calls) and not message.content


def _from_item(item: Mapping[str, Any]) -> Iterator[BaseMessage]:
    match item.get("type", "message"):
        case "message":
            yield _message(item)
        case "function_call":
            yield _call(item["name"], item.get("arguments"), item["call_id"])
        case "function_call_output":
            yield ToolMessage(_output(item.get("output")), tool_call_id=item["call_id"])
        case "mcp_call" if item.get("id") and item.get("name"):
            yield _call(item["name"], item.get("arguments"), item["id"])
            failure = item.get("error")
            yield ToolMessage(
                _output(item.get("output")) or (_error_text(failure) if failure else NOT_ANSWERED),
                tool_call_id=item["id"],
                status="success" if item.get("output") is not None else "error",
            )
        case _:
            return


def _message(item: Mapping[str, Any]) -> BaseMessage:
    content = _content(item.get("content") or "")
    match item.get("role"):
        case "assistant":
            return AIMessage(content)
        case "system" | "developer":
            return SystemMessage(content)
        case _:
            return HumanMessage(content)


def _call(name: str, arguments: str | None, call_id: str) -> AIMessage:
    try:
        parsed: Any = json.loads(arguments or "{}")
    except ValueError:
        parsed = None
    given = cast("dict[str, Any]", parsed) if isinstance(parsed, dict) else {"arguments": arguments}
    return AIMessage("", tool_calls=[{"name": name, "args": given, "id": call_id, "type": "tool_call"}])


def _output(output: Any) -> Any:
    """What a tool has returned: text, parts of content, or any JSON as text."""
    if output is None or isinstance(output, str):
        return output or ""
    return _content(output) if are_parts(output) else json.dumps(output)


def _content(content: str | Sequence[Mapping[str, Any]]) -> Any:
    """Text alone stays text: not every model takes parts."""
    if isinstance(content, str):
        return content
    parts = [_part(part) for part in content]
    if all(part["type"] == "text" for part in parts):
        return "".join(cast("str", part["text"]) for part in parts)
    return parts


def _part(part: Mapping[str, Any]) -> dict[str, Any]:
    """In the form of chat completions, which LangChain's models of every provider read.

    `problem_with` refuses a request whose parts lack something; earlier requests of a thread are only looked at.
    """
    match part.get("type"):
        case "input_image":
            url = {"url": part.get("image_url")}
            return {"type": "image_url", "image_url": url | ({"detail": part["detail"]} if part.get("detail") else {})}
        case "input_file" if part.get("file_url"):
            return {"type": "file", "url": part["file_url"]}
        case "input_file":
            named = {name: part[name] for name in ("filename", "file_data") if part.get(name)}
            return {"type": "file", "file": named}
        case "input_audio":
            return {"type": "input_audio", "input_audio": part.get("input_audio")}
        case _:
            return {"type": "text", "text": part.get("text") or part.get("refusal") or ""}


def is_file_url(part: object) -> bool:
    """Tell whether a part of a message is a file that is to be fetched."""
    return isinstance(part, dict) and "url" in part and cast("dict[str, Any]", part).get("type") == "file"


def _error_text(error: Any) -> str:
    if not isinstance(error, Mapping):
        return str(error)
    told = cast("Mapping[str, Any]", error)
    parts = cast("list[Any]", told["content"]) if isinstance(told.get("content"), list) else []
    texts = [str(cast("Any", part).get("text") or "") for part in parts if isinstance(part, Mapping)]
    return "".join(texts) or str(told.get("message") or NOT_ANSWERED)
