"""The context of a graph: what of a request and of the settings becomes of it, and what is refused in which words."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, TypedDict

import pytest
from pydantic import AliasChoices, BaseModel, Field, field_validator

from outlast.agent import AgentError, Context, Request
from outlast.shared.settings import GraphOptions, SettingsError
from outlast.worker.agents.langgraph.context import ContextSchema, Given

CALLER = Context("resp_1", "thread-1", "ada", "x", 1, None)


@dataclass(kw_only=True)
class Nested:
    depth: int = 0


@dataclass(kw_only=True)
class Plain:
    tone: str = "plain"
    results: int = 10
    nested: Nested = field(default_factory=Nested)
    api_key: str = "hidden"


@dataclass
class Needy:
    tenant: str
    user_id: str
    tone: str = "plain"


class Model(BaseModel):
    tone: str = "plain"
    results: int = Field(default=10, validation_alias=AliasChoices("maxResults", "max_results"))
    words: list[str] = []

    @field_validator("words", mode="before")
    @classmethod
    def _split(cls, value: Any) -> Any:
        return value.split(",") if isinstance(value, str) else value


class Keys(TypedDict):
    tone: str
    results: int


def given(schema: Any, *, set_to: dict[str, Any] | None = None, **body: Any) -> Given:
    return ContextSchema(schema, GraphOptions(context=set_to or {})).given(Request([], body), CALLER)


def test_defaults_are_there_when_nothing_is_given() -> None:
    assert given(Plain).context == Plain()
    assert given(Model).context == Model()
    keys = given(Keys).context
    assert keys == {} and keys, "LangGraph takes an empty context for none"
    assert given(None).context is None


@pytest.mark.parametrize("schema", [Plain, Model, Keys])
@pytest.mark.parametrize("field_name", ["context", "custom_inputs"])
def test_a_request_gives_values_to_the_fields_that_there_are(schema: Any, field_name: str) -> None:
    made = given(schema, **{field_name: {"tone": "warm", "conversation_id": "c", "other": 1}}).context

    assert (made["tone"] if isinstance(made, dict) else made.tone) == "warm"
    assert "other" not in (made if isinstance(made, dict) else vars(made))


def test_custom_inputs_win_over_the_context_and_both_over_the_settings() -> None:
    assert given(Plain, set_to={"tone": "set"}).context.tone == "set"
    assert given(Plain, set_to={"tone": "set"}, context={"tone": "a"}).context.tone == "a"
    assert given(Plain, context={"tone": "a"}, custom_inputs={"tone": "b"}).context.tone == "b"


def test_values_have_the_types_of_their_fields() -> None:
    assert given(Plain, context={"nested": {"depth": 3}}).context.nested == Nested(depth=3)
    made = given(Model, context={"maxResults": 3, "words": "a,b"}).context
    assert (made.results, made.words) == (3, ["a", "b"])
    assert given(Model, context={"results": 4}).context.results == 4


@pytest.mark.parametrize("schema", [Plain, Model, Keys])
def test_a_value_of_a_wrong_type_is_refused_with_its_field_and_not_repeated(schema: Any) -> None:
    with pytest.raises(AgentError) as refused:
        given(schema, custom_inputs={"results": "many"})

    assert refused.value.code == "invalid_context"
    assert "many" not in refused.value.message
    assert "esults: Input should be a valid integer" in refused.value.message


def test_fields_that_must_be_given_are_named_with_the_ways_to_give_them() -> None:
    with pytest.raises(AgentError) as refused:
        given(Needy)

    assert refused.value.message == (
        "The graph's context needs tenant: give it in the request's custom_inputs or context, "
        "or for all requests in OUTLAST_GRAPH_CONTEXT."
    )
    assert given(Needy, custom_inputs={"tenant": "t"}).context == Needy("t", "ada"), "the caller is known"


def test_code_that_reads_its_config_finds_the_same_values_but_none_of_ours() -> None:
    found = given(Plain, set_to={"results": 3}, context={"tone": "warm"}).configurable
    assert found == {"results": 3, "tone": "warm", "nested": Nested()}, "defaults that may be secret are not kept"

    names = ("thread_id", "user_id", "checkpoint_id", "outlast_request", "__pregel_store", "tone")
    bold: Any = TypedDict("bold", dict.fromkeys(names, str))  # type: ignore[misc]
    assert given(bold, custom_inputs=dict.fromkeys(names, "x")).configurable == {"tone": "x"}
    assert given(None, set_to={"tone": "set", "thread_id": "x"}).configurable == {"tone": "set"}


def test_settings_that_do_not_fit_are_found_when_the_graph_is_loaded() -> None:
    with pytest.raises(SettingsError, match="Agent a: OUTLAST_GRAPH_CONTEXT names tune; its graph's context has tone"):
        ContextSchema(Plain, GraphOptions("a", context={"tune": "warm"}))
    with pytest.raises(SettingsError, match="Agent a: OUTLAST_GRAPH_CONTEXT: results: Input should be a valid int"):
        ContextSchema(Plain, GraphOptions("a", context={"results": "many"}))

    shared = GraphOptions("a", context={"tone": "own"}, shared_context={"tone": "all", "results": 3, "tune": 1})
    made = ContextSchema(Plain, shared).given(Request([]), CALLER).context
    assert (made.tone, made.results) == ("own", 3)
