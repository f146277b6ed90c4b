"""docs/requests.md says of every field of the newest SDK what becomes of it, and what it says is so."""

from __future__ import annotations

import inspect
import re
from pathlib import Path
from typing import Any

import pytest
from langchain_openai import ChatOpenAI
from openai.resources.responses import Responses
from pydantic import SecretStr

from outlast.agent import Request
from outlast.api.request_checks import parse
from outlast.api.schemas import CreateResponse
from outlast.shared.domain.graph_requests import Taken, parameters_kept, problem_with
from outlast.worker.agents.langgraph.asked import Asked
from outlast.worker.agents.langgraph.conversation import to_messages
from outlast.worker.stage import items_of
from tests.support.model_endpoint import Text, model_endpoint

PAGE = Path(__file__).parents[2] / "docs" / "requests.md"
NO_FIELDS = {"self", "extra_headers", "extra_query", "extra_body", "timeout"}
"""Of the SDK's method: what is for the client itself."""


def rows(section: str) -> dict[str, str]:
    """The fields of a table, and what becomes of each."""
    [table] = re.findall(rf"^## {section}\n(.*?)^## ", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    found = re.findall(r"^\| (`[^|]+`) \| ([a-z ]+) \|", table, re.MULTILINE)
    return {name: becomes for names, becomes in found for name in re.findall(r"`(\w+)`", names)}


OPENAIS, OTHERS = rows("OpenAI's fields"), rows("Other fields")
FIELDS = OPENAIS | OTHERS
FUNCTION = {"type": "function", "name": "f", "parameters": {"type": "object", "properties": {}}}
REACHING: dict[str, tuple[Any, str, Any]] = {
    "input": ("Why?", "input", [{"role": "user", "content": "Why?", "type": "message"}]),
    "instructions": ("Be brief.", "input", [
        {"role": "system", "content": "Be brief.", "type": "message"},
        {"role": "user", "content": "hi", "type": "message"},
    ]),
    "max_output_tokens": (9, "max_output_tokens", 9),
    "parallel_tool_calls": (False, "parallel_tool_calls", False),
    "reasoning": ({"effort": "low", "summary": "auto"}, "reasoning", {"effort": "low", "summary": "auto"}),
    "temperature": (0.5, "temperature", 0.5),
    "text": ({"verbosity": "low"}, "text", {"verbosity": "low"}),
    "tool_choice": ({"type": "function", "name": "f"}, "tool_choice", {"type": "function", "name": "f"}),
    "tools": ([FUNCTION], "tools", [{**FUNCTION, "description": ""}]),
    "top_p": (0.5, "top_p", 0.5),
    "truncation": ("auto", "truncation", "auto"),
    "presence_penalty": (0.5, "presence_penalty", 0.5),
    "frequency_penalty": (0.5, "frequency_penalty", 0.5),
}  # fmt: skip
"""A value of a field, and where and how it arrives at the model's endpoint."""
KEPT: dict[str, Any] = {
    "access_programs": {"cyber": "standard"}, "background_options": {"completion_window": "2h"},
    "context_management": [{"type": "compaction"}], "image": {"context_compression": "auto"},
    "include": ["reasoning.encrypted_content"], "moderation": {"model": "m"}, "prompt_cache_key": "k",
    "prompt_cache_options": {"mode": "auto"}, "prompt_cache_retention": "24h", "safety_identifier": "s",
    "service_tier": "priority", "stream_options": {"include_obfuscation": False}, "top_logprobs": 5, "user": "u",
}  # fmt: skip
REFUSED: dict[str, Any] = {"prompt": {"id": "p"}}


def those(becomes: str) -> set[str]:
    return {name for name, what in FIELDS.items() if what == becomes}


def test_every_field_of_the_sdk_has_a_row_and_no_other_has() -> None:
    assert set(OPENAIS) == set(inspect.signature(Responses.create).parameters) - NO_FIELDS


def test_every_field_that_is_checked_here_has_a_row() -> None:
    assert set(CreateResponse.model_fields) <= set(FIELDS)
    assert set(OTHERS) <= set(CreateResponse.model_fields)


def test_every_claim_but_what_is_done_here_is_tried() -> None:
    assert set(FIELDS.values()) == {"reaches the model", "done here", "kept", "refused"}
    assert (those("reaches the model"), those("kept"), those("refused")) == (set(REACHING), set(KEPT), set(REFUSED))


@pytest.mark.parametrize("name", KEPT)
def test_what_is_kept_is_accepted_and_refused_by_the_strict(name: str) -> None:
    body = {"input": "hi", name: KEPT[name]}
    parse(body)
    assert problem_with(body, Taken()) is None and parameters_kept(body) == [name]
    problem = problem_with(body, Taken(strict=True))
    assert problem is not None and (problem.param, problem.code) == (name, "unsupported_parameter")


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused_is_named(name: str) -> None:
    problem = problem_with({"input": "hi", name: REFUSED[name]}, Taken())
    assert problem is not None and (problem.param, problem.code) == (name, "unsupported_parameter")


@pytest.mark.parametrize("name", REACHING)
async def test_what_reaches_the_model_arrives_at_its_endpoint(name: str) -> None:
    value, where, expected = REACHING[name]
    body: dict[str, Any] = {"input": "hi", name: value}
    if name in ("tool_choice", "parallel_tool_calls"):
        body["tools"] = [FUNCTION]
    parse(body)
    assert problem_with(body, Taken(strict=True)) is None
    responses = not name.endswith("_penalty")
    with model_endpoint() as endpoint:
        endpoint.will(Text("Yes."))
        model = ChatOpenAI(
            model="m", base_url=endpoint.url, api_key=SecretStr("k"), use_responses_api=responses, max_retries=0
        )
        request = Request(items_of(body), body)
        with Asked(request, lambda _: False, strict=True).applied():
            try:
                await model.ainvoke(to_messages(request.input, "run"))
            except Exception:  # noqa: BLE001 - this endpoint has no Responses API, but it keeps what it was sent
                assert responses
        assert endpoint.requests[0].body[where] == expected
