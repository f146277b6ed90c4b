"""A request's parameters in the words of each make of model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

from langchain_core.language_models import BaseChatModel

from . import makes

_FOR_ALL = {"temperature": "temperature", "top_p": "top_p", "max_output_tokens": "max_tokens"}
"""The request's name of a parameter, and the one that LangChain's models take."""
_PENALTIES = ("presence_penalty", "frequency_penalty")
_ASKED_AS = {
    "max_tokens": "max_output_tokens", "reasoning_effort": "reasoning.effort", "verbosity": "text.verbosity",
}  # fmt: skip
"""The request's names of options that have another one."""


class Parameters:
    """Those of one request that models may know."""

    def __init__(self, body: Mapping[str, Any]) -> None:
        self._for_all = {theirs: body[ours] for ours, theirs in _FOR_ALL.items() if body.get(ours) is not None}
        self._penalties = {name: body[name] for name in _PENALTIES if body.get(name) is not None}
        self._reasoning = _given(body.get("reasoning"), "effort", "summary")
        self._verbosity = _given(body.get("text"), "verbosity").get("verbosity")
        self._truncation = body.get("truncation") if body.get("truncation") != "disabled" else None

    def options_for(self, model: BaseChatModel, given: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
        """Return what to add to the options of a call, and the names of what this make of model cannot be told."""
        options, unknown = dict(self._for_all), list[str]()
        responses = makes.speaks_responses(model, given)
        for name, value in self._penalties.items():  # which the Responses API does not have
            if not responses and makes.has_field(model, name):
                options[name] = value
            else:
                unknown.append(name)
        if self._verbosity is not None:
            if makes.has_field(model, "verbosity"):
                options["verbosity"] = self._verbosity
            else:
                unknown.append("text.verbosity")
        if self._truncation is not None:
            if responses:
                options["truncation"] = self._truncation
            else:
                unknown.append("truncation")
        if self._reasoning:
            found = _reasoning(model, self._reasoning, given, responses)
            options |= found
            known = self._reasoning if "reasoning" in found else {"effort"} if found else set[str]()
            unknown += [f"reasoning.{name}" for name in self._reasoning if name not in known]
        return options, unknown


def asked_as(option: str) -> str:
    """Return the request's name of an option."""
    return _ASKED_AS.get(option, option)


def _given(values: Mapping[str, Any] | None, *names: str) -> dict[str, Any]:
    return {name: value for name in names if (value := (values or {}).get(name)) is not None}


def _reasoning(
    model: BaseChatModel, asked: Mapping[str, Any], given: Mapping[str, Any], responses: bool
) -> dict[str, Any]:
    """In a Responses API's own words, else the effort alone; nothing for a make that knows neither."""
    if responses and getattr(model, "reasoning_effort", None) is None:  # it cannot be told both ways
        own: Mapping[str, Any] = given.get("reasoning") or cast("Any", model).reasoning or {}
        return {"reasoning": {**own, **asked}}
    if "effort" in asked and makes.has_field(model, "reasoning_effort"):
        return {"reasoning_effort": asked["effort"]}
    return {}
