"""What a model's message says, as emissions."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from langchain_core.messages import AIMessage, BaseMessage, ToolMessage

from outlast.agent import Reasoning, Text, Usage


def pieces(message: AIMessage, key: str) -> Iterator[Text | Reasoning]:
    """Text and reasoning of a message, or of a chunk of one."""
    if isinstance(message.content, str) and "reasoning_content" not in message.additional_kwargs:
        yield Text(message.content, key)
        return
    for block in message.content_blocks:  # LangChain's own form of every provider's content
        if block["type"] == "text":
            yield Text(block["text"], key)
        elif block["type"] == "reasoning":
            yield Reasoning(block.get("reasoning") or "", key)


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


def output_of(message: ToolMessage) -> str:
    """What a tool returned: its text, or the JSON of what is not only text."""
    content: Any = message.content
    if isinstance(content, str):
        return content
    texts = [part if isinstance(part, str) else part.get("text") for part in content]
    return "".join(texts) if all(isinstance(text, str) for text in texts) else json.dumps(content, default=str)
