"""What of a request each make of model is given, call by call."""

from __future__ import annotations

from typing import Any

import pytest
import structlog.testing
from langchain_core.messages import HumanMessage
from langchain_openai import ChatOpenAI
from pydantic import SecretStr

from outlast.agent import AgentError, Request
from outlast.worker.agents.langgraph.asked import Asked
from tests.support.adder import rule
from tests.support.graphs import RuleModel, function
from tests.support.model_endpoint import Text, model_endpoint

F, G, OWN = function("f"), function("g"), function("own")
HOSTED: dict[str, Any] = {"type": "web_search", "search_context_size": "low"}
ODD: dict[str, Any] = {"type": "local_shell"}


def asked(**body: Any) -> Asked:
    return Asked(Request([], body), lambda _: False)


def chat(**options: Any) -> ChatOpenAI:
    return ChatOpenAI(model="m", base_url="http://127.0.0.1:9", api_key=SecretStr("k"), **options)


def options_of(wishes: Asked, model: Any, *own: dict[str, Any]) -> dict[str, Any]:
    """Those of a call; asking for them again, as LangChain's own calls within calls do, changes nothing."""
    given = dict(model.bind_tools([tool["name"] and chat_tool(tool) for tool in own]).kwargs) if own else {}
    options = wishes.options(model, given)
    assert wishes.options(model, options) == options
    return options


def chat_tool(tool: dict[str, Any]) -> dict[str, Any]:
    return {"type": "function", "function": {"description": "", **{k: v for k, v in tool.items() if k != "type"}}}


def names(options: dict[str, Any]) -> list[str]:
    return [tool.get("function", tool).get("name", tool["type"]) for tool in options.get("tools", ())]


def allowed(mode: str, *tools: dict[str, Any]) -> dict[str, Any]:
    return {"type": "allowed_tools", "mode": mode, "tools": list(tools)}


@pytest.mark.parametrize(("mode", "forced"), [("auto", None), ("required", "required")])
def test_only_allowed_tools_of_the_clients_are_given(mode: str, forced: str | None) -> None:
    choice = allowed(mode, {"type": "function", "name": "g"})
    options = options_of(asked(tools=[F, G, HOSTED], tool_choice=choice), chat(), OWN)
    assert names(options) == ["own", "g"] and options.get("tool_choice") == forced


def test_a_tool_that_must_be_called_is_free_after_the_first_call() -> None:
    wishes = asked(tools=[F], tool_choice=allowed("required", {"type": "function", "name": "f"}))
    wishes.called(by_client=False)
    assert "tool_choice" not in options_of(wishes, chat())


@pytest.mark.parametrize("choice", [{"type": "web_search"}, "auto"])
def test_tools_of_the_models_provider_are_given_as_they_are(choice: Any) -> None:
    options = options_of(asked(tools=[F, HOSTED, ODD], tool_choice=choice), chat(), OWN)
    assert options["tools"][2:] == [HOSTED, ODD] and names(options)[:2] == ["own", "f"]
    assert options.get("tool_choice") == (None if choice == "auto" else choice)
    payload = chat()._get_request_payload([HumanMessage("hi")], **options)
    assert payload["tools"][2:] == [HOSTED, ODD] and "input" in payload


def test_a_choice_of_no_tools_is_for_the_providers_too() -> None:
    assert names(options_of(asked(tools=[F, HOSTED], tool_choice="none"), chat(), OWN)) == []


def test_after_so_many_calls_the_graphs_own_tools_are_gone() -> None:
    wishes = asked(tools=[F, HOSTED], max_tool_calls=2)
    for _ in range(2):
        assert names(options_of(wishes, chat(), OWN)) == ["own", "f", "web_search"]
        wishes.called(by_client=False)
    assert names(options_of(wishes, chat(), OWN)) == ["f"]


def test_calls_for_the_client_do_not_count_and_those_of_earlier_attempts_do() -> None:
    wishes = Asked(Request([], {"max_tool_calls": 2}), lambda _: False, calls_made=1)
    wishes.called(by_client=True)
    assert names(options_of(wishes, chat(), OWN)) == ["own"]
    wishes.called(by_client=False)
    assert "tools" not in options_of(wishes, chat(), OWN)


def test_calls_one_by_one_are_asked_for_with_the_graphs_own_tools_too() -> None:
    assert options_of(asked(parallel_tool_calls=False), chat(), OWN)["parallel_tool_calls"] is False
    assert "parallel_tool_calls" not in options_of(asked(parallel_tool_calls=False), chat())
    assert "parallel_tool_calls" not in options_of(asked(parallel_tool_calls=True, tools=[F]), chat())


EVERYTHING: dict[str, Any] = {
    "reasoning": {"effort": "low", "summary": "auto"}, "text": {"verbosity": "low"}, "truncation": "auto",
    "presence_penalty": 0.5, "frequency_penalty": 0.1, "parallel_tool_calls": False, "user": "u", "tools": [F],
}  # fmt: skip
MADE: list[tuple[Any, dict[str, Any], list[str]]] = [
    (
        chat(),
        {"reasoning_effort": "low", "verbosity": "low", "presence_penalty": 0.5, "frequency_penalty": 0.1},
        ["user", "truncation", "reasoning.summary"],
    ),
    (
        chat(use_responses_api=True, reasoning={"effort": "high", "generate_summary": "concise"}),
        {
            "reasoning": {"effort": "low", "summary": "auto", "generate_summary": "concise"},
            "verbosity": "low",
            "truncation": "auto",
        },
        ["user", "presence_penalty", "frequency_penalty"],
    ),
    (
        chat(use_responses_api=True, reasoning_effort="high"),
        {"reasoning_effort": "low", "verbosity": "low", "truncation": "auto"},
        ["user", "presence_penalty", "frequency_penalty", "reasoning.summary"],
    ),
    (
        RuleModel(answer=rule),
        {},
        ["user", "parallel_tool_calls", "presence_penalty", "frequency_penalty", "text.verbosity", "truncation",
         "reasoning.effort", "reasoning.summary"],
    ),
]  # fmt: skip


@pytest.mark.parametrize(("model", "given", "kept"), MADE)
def test_each_make_is_given_what_it_knows_and_the_log_has_the_rest_once(
    model: Any, given: dict[str, Any], kept: list[str]
) -> None:
    with structlog.testing.capture_logs() as logged:
        options = options_of(asked(**EVERYTHING), model)
    assert {name: value for name, value in options.items() if name not in ("tools", "parallel_tool_calls")} == given
    [line] = logged
    assert (line["event"], line["parameters"]) == ("agent.parameters_kept", kept)


def test_what_a_make_does_not_know_fails_where_that_is_refused() -> None:
    with pytest.raises(AgentError, match="'truncation' reaches no model") as failed:
        Asked(Request([], {"truncation": "auto"}), lambda _: False, strict=True).options(chat(), {})
    assert failed.value.code == "unsupported_parameter"


async def test_a_refusal_of_the_endpoint_names_the_parameter() -> None:
    with model_endpoint() as endpoint:
        endpoint.will_refuse(400, "Unrecognized request argument supplied: reasoning_effort")
        endpoint.will_refuse(400, "Something else.")
        model = ChatOpenAI(model="m", base_url=endpoint.url, api_key=SecretStr("k"), stream_usage=False, max_retries=0)
        with asked(reasoning={"effort": "low"}).applied():
            with pytest.raises(AgentError, match=r"refuses 'reasoning\.effort'"):
                await model.ainvoke("hi")
            with pytest.raises(Exception, match="Something else") as other:
                await model.ainvoke("hi")
    assert not isinstance(other.value, AgentError)


FILE = HumanMessage([{"type": "file", "url": "https://example.org/a.pdf"}])


async def test_chat_completions_cannot_be_given_the_address_of_a_file() -> None:
    with model_endpoint() as endpoint:
        endpoint.will(Text("Seen."))
        model = ChatOpenAI(model="m", base_url=endpoint.url, api_key=SecretStr("k"), max_retries=0)
        with asked().applied(), pytest.raises(AgentError, match="file_data") as failed:
            await model.ainvoke([FILE])
        assert failed.value.code == "unsupported_content" and endpoint.requests == []


def test_other_models_may_be_given_it() -> None:
    for model in (RuleModel(answer=rule), chat(use_responses_api=True)):
        asked().check_content(model, [[FILE]], {})
