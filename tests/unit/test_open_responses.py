"""Our events and response objects against Open Responses: its schema when at hand, and always a table of ours.

OPEN_RESPONSES_SCHEMA names the schema, an OpenAPI document (CONTRIBUTING.md says where it comes from). It knows no
``mcp_call``, so server-run tools are shown as pairs of function calls here.
"""

from __future__ import annotations

import json
import os
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from outlast.agent import ClientCall, Reasoning, State, ToolCall, ToolResult, Usage
from outlast.api.request_checks import parse
from outlast.shared.domain.runs import ToolItems
from tests.support.streams import End, stream_of

SCHEMA_FILE = os.environ.get("OPEN_RESPONSES_SCHEMA")

RESPONSE_KEYS = [
    "id", "object", "created_at", "completed_at", "status", "incomplete_details", "model", "previous_response_id",
    "instructions", "output", "error", "tools", "tool_choice", "truncation", "parallel_tool_calls", "text", "top_p",
    "presence_penalty", "frequency_penalty", "top_logprobs", "temperature", "reasoning", "usage",
    "max_output_tokens", "max_tool_calls", "store", "background", "service_tier", "metadata", "safety_identifier",
    "prompt_cache_key",
]  # fmt: skip
NOT_NULL = [
    "id", "object", "created_at", "status", "model", "output", "tools", "tool_choice", "truncation",
    "parallel_tool_calls", "text", "top_p", "presence_penalty", "frequency_penalty", "top_logprobs", "temperature",
    "usage", "store", "background", "service_tier", "metadata",
]  # fmt: skip
OURS = ["user", "attempt_number", "conversation", "custom_outputs"]

ITEM, PART, SUMMARY = ["output_index", "item"], ["item_id", "output_index", "content_index"], "summary_index"
EVENT_KEYS: dict[str, list[str]] = {
    "response.created": ["response"],
    "response.queued": ["response"],
    "response.in_progress": ["response"],
    "response.completed": ["response"],
    "response.failed": ["response"],
    "response.incomplete": ["response"],
    "response.output_item.added": ITEM,
    "response.output_item.done": ITEM,
    "response.content_part.added": [*PART, "part"],
    "response.content_part.done": [*PART, "part"],
    "response.output_text.delta": [*PART, "delta", "logprobs"],
    "response.output_text.done": [*PART, "text", "logprobs"],
    "response.reasoning_summary_part.added": ["item_id", "output_index", SUMMARY, "part"],
    "response.reasoning_summary_part.done": ["item_id", "output_index", SUMMARY, "part"],
    "response.reasoning_summary_text.delta": ["item_id", "output_index", SUMMARY, "delta"],
    "response.reasoning_summary_text.done": ["item_id", "output_index", SUMMARY, "text"],
    "response.function_call_arguments.delta": ["item_id", "output_index", "delta"],
    "response.function_call_arguments.done": ["item_id", "output_index", "arguments", "name"],
}
ITEM_KEYS: dict[str, list[str]] = {
    "message": ["type", "id", "status", "role", "content"],
    "reasoning": ["type", "id", "summary"],
    "function_call": ["type", "id", "call_id", "name", "arguments", "status"],
    "function_call_output": ["type", "id", "call_id", "output", "status"],
}

EVERYTHING: list[object] = [
    Reasoning("hm"), "Look: ", ToolCall("t", {"a": 1}, "c"), ToolResult("c", "1"), ToolCall("t", {}, "c"),
    ToolResult("c", error="no"), "Bye", State({"a": 1}), Usage(1, 2, 3, 4), ClientCall("f", {}, "x"), Reasoning("so"),
]  # fmt: skip
REQUESTS: dict[str, dict[str, Any]] = {
    "plain": {"input": "hi"},
    "every field": {
        "input": [{"role": "user", "content": [{"type": "input_text", "text": "hi"}]}], "model": "test",
        "instructions": "Be brief.", "stream": True, "background": True, "store": True, "metadata": {"a": "b"},
        "previous_response_id": "resp_0", "custom_inputs": {"a": [1]}, "context": {"conversation_id": "c"},
        "tools": [{"type": "function", "name": "f"}, {"type": "function", "name": "g", "strict": True}],
        "tool_choice": "required", "parallel_tool_calls": False, "temperature": 0, "top_p": 1, "presence_penalty": -1,
        "frequency_penalty": 0.5, "top_logprobs": 20, "max_output_tokens": 100, "max_tool_calls": 1, "user": "u",
        "text": {"format": {"type": "json_object"}, "verbosity": "low"}, "reasoning": {"effort": "low"},
        "truncation": "auto", "service_tier": "flex", "safety_identifier": "s", "prompt_cache_key": "k",
    },
    "every field null": {
        "input": "hi", "model": None, "instructions": None, "stream": None, "background": None, "store": None,
        "metadata": None, "previous_response_id": None, "conversation": None, "custom_inputs": None, "context": None,
        "tools": None, "tool_choice": None, "parallel_tool_calls": None, "temperature": None, "top_p": None,
        "presence_penalty": None, "frequency_penalty": None, "top_logprobs": None, "max_output_tokens": None,
        "max_tool_calls": None, "text": None, "reasoning": None, "truncation": None, "service_tier": None,
        "safety_identifier": None, "prompt_cache_key": None, "user": None, "tool_items": None,
    },
    "empty objects": {
        "input": [], "conversation": "c", "tools": [], "text": {}, "reasoning": {}, "metadata": {}, "custom_inputs": {},
    },
    "nulls inside": {"input": "hi", "text": {"format": None}, "reasoning": {"effort": None, "summary": "auto"}},
    "a chosen tool": {"input": "hi", "tool_choice": {"type": "function", "name": "f"}},
    "allowed tools": {"input": "hi", "tool_choice": {
        "type": "allowed_tools", "tools": [{"type": "function", "name": "f"}],
    }},
}  # fmt: skip
ENDS: list[End] = ["complete", "fail", "cancel"]


def a_stream(name: str, end: End) -> list[dict[str, Any]]:
    parse(REQUESTS[name])  # what is not accepted need not be shown
    return stream_of(EVERYTHING, end=end, request=REQUESTS[name], tool_items=ToolItems.FUNCTION_CALL)


@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("name", REQUESTS)
def test_every_required_key_is_there_and_no_number_is_null(name: str, end: End) -> None:
    for event in a_stream(name, end):
        ours = [] if event["type"].endswith(".delta") else ["created_at"]
        keys = ["type", "sequence_number", *EVENT_KEYS[event["type"]], *ours]
        assert [key for key in event if key not in ("key", "usage", "asides")] == keys
        if "response" in event:
            response = event["response"]
            assert sorted(response) == sorted([*RESPONSE_KEYS, *OURS])
            assert not [key for key in NOT_NULL if response[key] is None]
            assert response["object"] == "response"
        if "item" in event:
            assert not set(ITEM_KEYS[event["item"]["type"]]) - set(event["item"])


def test_the_table_has_all_that_is_required() -> None:
    assert len(RESPONSE_KEYS) == 31 and set(NOT_NULL) <= set(RESPONSE_KEYS)


@cache
def validators() -> dict[str, Draft202012Validator]:
    """By event type, and the response object under ``response``."""
    assert SCHEMA_FILE is not None
    document = json.loads(Path(SCHEMA_FILE).read_bytes())
    schemas = document["components"]["schemas"]
    names = {
        schema["properties"]["type"]["enum"][0]: name
        for name, schema in schemas.items()
        if name.endswith("StreamingEvent")
    }
    return {
        kind: Draft202012Validator({"components": {"schemas": schemas}, "$ref": f"#/components/schemas/{name}"})
        for kind, name in {**names, "response": "ResponseResource"}.items()
    }


if SCHEMA_FILE is not None:  # the schema is not ours to ship; CONTRIBUTING says how to run these

    @pytest.mark.parametrize("end", ENDS)
    @pytest.mark.parametrize("name", REQUESTS)
    def test_events_and_responses_are_valid_by_the_schema(name: str, end: End) -> None:
        events = a_stream(name, end)
        for event in events:
            validators()[event["type"]].validate(event)
        validators()["response"].validate(events[-1]["response"])

    def test_our_table_asks_for_no_less_than_the_schema() -> None:
        assert validators().keys() - {"response"} >= EVENT_KEYS.keys()
        schemas = validators()["response"].schema["components"]["schemas"]  # type: ignore[index]
        assert sorted(schemas["ResponseResource"]["required"]) == sorted(RESPONSE_KEYS)
        for kind, keys in EVENT_KEYS.items():
            required = validators()[kind].schema["$ref"].rpartition("/")[2]  # type: ignore[index]
            assert set(schemas[required]["required"]) <= {"type", "sequence_number", *keys}
