"""The form that a request asks its answer to have, in the words of each make of model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

from langchain_core.language_models import BaseChatModel

from outlast.agent import Annotation, Reasoning, Text
from outlast.worker.form import JSON_OBJECT

from . import makes

_OWN = {"response_format", "output_config", "output_format", "format", "response_schema",
        "response_json_schema", "response_mime_type"}  # fmt: skip
"""Options with which a graph gives its model a form of its own."""
_BESIDE_TOOLS = {"response_format", "output_config", "output_format"}
"""Options of models that can be given tools as well."""


def has_own(options: Mapping[str, Any]) -> bool:
    """Whether the graph itself says what form this call's answer has: a schema, or a tool that must be called."""
    forced = options.get("tool_choice") not in (None, False, "auto", "none")
    extra: Mapping[str, Any] = options.get("extra_body") or {}
    text: Mapping[str, Any] = options.get("text") or {}
    return forced or "format" in text or not _OWN.isdisjoint(options) or not _OWN.isdisjoint(extra)


def options_for(model: BaseChatModel, form: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any] | None:
    """What to add to a call's options, so that its answer has the form; None when this model cannot be told."""
    if makes.is_openai(model):
        return _for_openai(model, form, given)
    found = _by_its_own_means(model, form)
    return None if given.get("tools") and found and _BESIDE_TOOLS.isdisjoint(found) else found


def _for_openai(model: Any, form: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    if form["type"] == JSON_OBJECT:
        asked: dict[str, Any] = {"type": JSON_OBJECT}
    else:
        described = {
            name: form[name] for name in ("name", "description", "schema", "strict") if form.get(name) is not None
        }
        asked = {"type": form["type"], form["type"]: described}
    if makes.speaks_responses(model, given):
        return {"response_format": asked}
    # As an option of its own it has langchain-openai parse the answer, which insists on strict tools and whole answers.
    extra: Mapping[str, Any] = {**(model.extra_body or {}), **(given.get("extra_body") or {})}
    return {"extra_body": {**extra, "response_format": asked}}


def _by_its_own_means(model: BaseChatModel, form: Mapping[str, Any]) -> dict[str, Any] | None:
    """The options that the model's own ``with_structured_output`` binds."""
    schema: dict[str, Any] = {"title": form.get("name", "answer"), **form.get("schema", {"type": "object"})}
    if form.get("description"):
        schema = {"description": form["description"], **schema}
    try:
        made: Any = model.with_structured_output(
            schema, method="json_mode" if form["type"] == JSON_OBJECT else "json_schema"
        )
        bound = cast("dict[str, Any]", made.first.kwargs)
    except Exception:  # noqa: BLE001 - each make has its own way of saying that it knows no such method
        return None
    options = {name: value for name, value in bound.items() if name != "ls_structured_output_format"}
    return options if options and "tools" not in options else None


class Spoken:
    """What models say while JSON is asked for. What does not begin as JSON is shown as reasoning, not as the answer.

    Many models say something beside a tool call, and clients that parse an answer parse all of its messages.
    """

    def __init__(self) -> None:
        self._begun: dict[str | None, bool] = {}

    def of(self, said: Text | Annotation) -> Text | Reasoning | Annotation | None:
        """The same as part of the answer, or of the reasoning; None when it is not part of either."""
        if isinstance(said, Annotation):
            return said if self._begun.get(said.key) else None
        if said.key not in self._begun:
            if not (first := said.delta.lstrip()[:1]):
                return None
            self._begun[said.key] = first in "{["
        return said if self._begun[said.key] else Reasoning(said.delta, said.key)

    def forget(self, key: str) -> None:
        self._begun.pop(key, None)
