"""Answers in the form that `text.format` asks for: what is right, what is wrong, and schemas that would do harm."""

from __future__ import annotations

import json
from typing import Any

import pytest

from outlast.agent import AgentError
from outlast.shared.output.items import Item
from outlast.worker.form import check, check_schema, form_of

CITY: dict[str, Any] = {
    "type": "object",
    "properties": {"city": {"type": "string"}, "days": {"type": "array", "items": {"type": "integer"}}},
    "required": ["city"],
    "additionalProperties": False,
}


def schema(given: Any) -> dict[str, Any]:
    return {"type": "json_schema", "name": "city", "schema": given}


def message(text: str, kind: str = "output_text") -> Item:
    part = {"type": kind, "text" if kind == "output_text" else kind: text}
    return Item(0, {"id": "msg_1", "type": "message", "content": [part]}, open=False)


def fault(form: dict[str, Any], *texts: str) -> str:
    with pytest.raises(AgentError) as raised:
        check(form, [message(text) for text in texts])
    assert raised.value.code in ("invalid_answer_format", "invalid_json_schema")
    assert "text.format" in raised.value.message
    return raised.value.message


@pytest.mark.parametrize("form", [None, {}, {"type": "text"}])
def test_text_is_no_form(form: Any) -> None:
    assert form_of({"text": {"format": form}}) is None
    assert form_of({}) is None


def test_an_answer_of_the_schema_is_right() -> None:
    check(schema(CITY), [message('{"city": "Rome", "days": [1]}'), message('{"city": "Oslo"}')])
    check({"type": "json_object"}, [message("{}")])


def test_a_refusal_is_an_answer() -> None:
    check(schema(CITY), [message("I will not.", "refusal")])


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("It rains in Rome.", "not JSON"),
        ('{"city": "Rome", "days": [1', "only the beginning"),
        ('{"city": NaN}', "not JSON"),
        ("```json\n{}\n```", "not JSON"),
        ("{}", "'city' is a required property"),
        ('{"city": "Rome", "days": [1, "two"]}', "days[1]: 'two' is not of type 'integer'"),
        ('{"city": "Rome", "land": "Italy"}', "'land' was unexpected"),
        ("[" * 100_000, "not JSON"),
    ],
)
def test_an_answer_of_another_form_is_named(text: str, said: str) -> None:
    assert said in fault(schema(CITY), text)
    assert said in fault(schema(CITY), '{"city": "Rome"}', text)


def test_json_that_is_no_object_is_not_what_json_object_asks_for() -> None:
    assert "not of type 'object'" in fault({"type": "json_object"}, "[]")


def test_no_message_is_no_answer() -> None:
    assert "no message" in fault(schema(CITY))


@pytest.mark.parametrize("given", [{"type": "nothing"}, {"properties": []}, {"required": "city"}])
def test_a_schema_that_is_none_is_named(given: Any) -> None:
    with pytest.raises(AgentError, match=r"text\.format\.schema"):
        check_schema(schema(given))
    check_schema(schema(CITY))


def test_a_schema_fetches_nothing() -> None:
    assert "within it" in fault(schema({"$ref": "http://127.0.0.1:9/schema.json"}), "{}")


def test_a_schema_that_asks_for_billions_of_checks_is_given_up() -> None:
    doubled = {f"d{n}": {"allOf": [{"$ref": f"#/$defs/d{n + 1}"}] * 2} for n in range(40)} | {"d40": {}}
    assert "too often" in fault(schema({"$defs": doubled, "$ref": "#/$defs/d0"}), "{}")
    assert "too often" in fault(schema({"$ref": "#"}), "{}")


NEVER_ENDS = {"pattern": "^(a+)+$", "patternProperties": {"^(a+)+$": {}}, "additionalProperties": False}


@pytest.mark.parametrize("draft", [{}, {"$schema": "https://json-schema.org/draft/2020-12/schema"}])
def test_regular_expressions_are_left_to_the_model(draft: dict[str, Any]) -> None:
    endless = "a" * 60 + "!"
    given = {**draft, "properties": {"x": {**draft, **NEVER_ENDS}}, **NEVER_ENDS, "unevaluatedProperties": False}
    check(schema(given), [message(json.dumps({"x": endless, endless: 1}))])


def test_properties_named_like_keywords_are_properties() -> None:
    given = {"properties": {"pattern": {"type": "string"}}, "additionalProperties": False}
    check(schema(given), [message('{"pattern": "x"}')])
    assert "not of type 'string'" in fault(schema(given), '{"pattern": 1}')
