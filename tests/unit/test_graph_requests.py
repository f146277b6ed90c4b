"""What a request asks that no graph can do is named, with the way out; all else is accepted."""

from __future__ import annotations

from typing import Any, get_args, get_type_hints

import pytest
from openai.types.responses.tool_param import ToolParam

from outlast.shared.domain.graph_requests import Taken, problem_with
from outlast.shared.settings import Settings

F: dict[str, Any] = {"type": "function", "name": "f", "parameters": {}}
HOSTED = sorted({
    name for kind in get_args(ToolParam) for name in get_args(get_type_hints(kind)["type"]) if name != "function"
})  # fmt: skip
NOT_MESSAGES = ["web_search_call", "custom_tool_call", "custom_tool_call_output", "compaction", "mcp_approval_response"]
PLAIN = Taken()
URL = "data:image/png;base64,AA=="


def problem(body: dict[str, Any], taken: Taken = PLAIN) -> tuple[str | None, str | None] | None:
    found = problem_with({"input": "hi"} | body, taken)
    return None if found is None else (found.param, found.code)


def with_content(*parts: dict[str, Any]) -> dict[str, Any]:
    return {"input": [{"role": "user", "content": "hi"}, {"role": "user", "content": list(parts)}]}


@pytest.mark.parametrize("kind", [*HOSTED, "odd"])
def test_tools_that_nothing_here_runs_are_named(kind: str) -> None:
    body = {"tools": [F, {"type": kind}]}
    assert problem(body) == ("tools[1].type", "unsupported_tool")
    assert kind in str(problem_with({"input": "hi"} | body, Taken()))
    assert problem(body, Taken({kind})) is None


def test_an_operator_names_the_tools_of_each_agent() -> None:
    settings = Settings(graph_tools="web_search,mine=mcp,mine=custom")  # type: ignore[arg-type]
    assert settings.taken("mine").tools == {"web_search", "mcp", "custom"}
    assert settings.graph_options("other").taken.tools == {"web_search"}
    assert not settings.taken("mine").strict and Settings(strict_parameters=True).graph_options("mine").taken.strict


ALLOWED: dict[str, Any] = {"type": "allowed_tools", "mode": "auto"}
CHOICES: list[tuple[Any, tuple[str, str] | None]] = [
    ("auto", None),
    ("none", None),
    ("required", None),
    ({"type": "function", "name": "f"}, None),
    ({"type": "function", "name": "g"}, ("tool_choice.name", "invalid_value")),
    ({"type": "function", "function": {"name": "f"}}, ("tool_choice.name", "missing_required_parameter")),
    ({"type": "web_search"}, None),
    ({"type": "mcp", "server_label": "x"}, ("tool_choice.type", "invalid_value")),
    (ALLOWED | {"tools": [{"type": "function", "name": "f"}, {"type": "web_search"}]}, None),
    (ALLOWED | {"tools": [{"type": "function", "name": "g"}]}, ("tool_choice.tools[0].name", "invalid_value")),
    (ALLOWED | {"tools": [{"type": "mcp"}]}, ("tool_choice.tools[0].type", "invalid_value")),
    (ALLOWED | {"tools": ["f"]}, ("tool_choice.tools[0].type", "missing_required_parameter")),
    (ALLOWED, ("tool_choice.tools", "missing_required_parameter")),
    (ALLOWED | {"tools": [], "mode": "any"}, ("tool_choice.mode", "invalid_value")),
]


@pytest.mark.parametrize(("choice", "expected"), CHOICES)
def test_a_choice_is_among_the_requests_tools(choice: Any, expected: Any) -> None:
    assert problem({"tools": [F, {"type": "web_search"}], "tool_choice": choice}, Taken({"web_search"})) == expected


@pytest.mark.parametrize("kind", NOT_MESSAGES)
def test_items_without_a_message_are_named(kind: str) -> None:
    assert problem({"input": [{"role": "user", "content": "hi"}, {"type": kind}]}) == (
        "input[1].type", "unsupported_item"
    )  # fmt: skip


def test_a_history_of_what_responses_contain_is_accepted() -> None:
    items: list[dict[str, Any]] = [
        {"role": "user", "content": "hi"},
        {"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": "x"},
        {"type": "mcp_list_tools", "tools": []},
        {"type": "mcp_approval_request", "id": "a"},
        {"type": "mcp_call", "id": "m", "name": "add", "arguments": "{}", "output": "1"},
        {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "c", "output": [{"type": "dog"}]},
        {"type": "item_reference", "id": "msg_1"},
        {"id": "msg_2"},
        {"role": "assistant", "content": [{"type": "output_text", "text": ""}, {"type": "refusal", "refusal": "No."}]},
    ]
    assert problem({"input": items}) is None


WRONG_PARTS: list[tuple[dict[str, Any], tuple[str, str]]] = [
    ({"type": "input_image", "file_id": "f"}, (".file_id", "unsupported_content")),
    ({"type": "input_image"}, (".image_url", "missing_required_parameter")),
    ({"type": "input_image", "image_url": ""}, (".image_url", "missing_required_parameter")),
    ({"type": "input_image", "image_url": {"url": URL}}, (".image_url", "missing_required_parameter")),
    ({"type": "input_file", "file_id": "f", "filename": "a"}, (".file_id", "unsupported_content")),
    ({"type": "input_file", "filename": "a"}, (".file_data", "missing_required_parameter")),
    ({"type": "input_audio"}, (".input_audio", "missing_required_parameter")),
    ({"type": "input_text"}, (".text", "missing_required_parameter")),
    ({"type": "refusal", "text": "No."}, (".refusal", "missing_required_parameter")),
    ({"type": "image_url", "image_url": {"url": URL}}, (".type", "unsupported_content")),
    ({"type": "input_video", "video_url": URL}, (".type", "unsupported_content")),
]


@pytest.mark.parametrize(("part", "expected"), WRONG_PARTS)
def test_content_that_no_model_can_be_given_is_named(part: dict[str, Any], expected: tuple[str, str]) -> None:
    param, code = expected
    assert problem(with_content({"type": "input_text", "text": "a"}, part)) == (f"input[1].content[1]{param}", code)


@pytest.mark.parametrize("part", [part for part, _ in WRONG_PARTS if str(part["type"]).startswith("input_i")])
def test_content_of_a_functions_output_is_held_to_the_same(part: dict[str, Any]) -> None:
    item = {"type": "function_call_output", "call_id": "c", "output": [part]}
    found = problem({"input": [item]})
    assert found is not None and str(found[0]).startswith("input[0].output[0].")


def test_content_that_can_be_given_is_accepted() -> None:
    assert problem(with_content(
        {"type": "input_image", "image_url": URL, "file_id": None},
        {"type": "input_file", "file_data": URL, "filename": "a.pdf"},
        {"type": "input_file", "file_url": "https://example.org/a.pdf"},
        {"type": "input_audio", "input_audio": {"data": "AA==", "format": "wav"}},
    )) is None  # fmt: skip


@pytest.mark.parametrize(
    "idle",
    [{"service_tier": "auto"}, {"service_tier": "default"}, {"top_logprobs": 0}, {"include": []}, {"user": ""},
     {"truncation": "disabled"}, {"parallel_tool_calls": True}, {"metadata": {"a": "b"}}, {"own": 1}, {"prompt": None}],
)  # fmt: skip
def test_what_asks_for_nothing_passes_the_strict_too(idle: dict[str, Any]) -> None:
    assert problem(idle, Taken(strict=True)) is None
