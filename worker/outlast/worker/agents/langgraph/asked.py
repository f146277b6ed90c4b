"""What a request asks of the model: instructions, limits, the client's tools, the form of the answer.

`model_calls` gives it to the model calls of the run.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, cast
from uuid import UUID

import structlog
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import BaseMessage, SystemMessage

from outlast.agent import AgentError, Annotation, Request, Text
from outlast.shared.domain.graph_requests import ALLOWED_TOOLS, FUNCTION, parameters_kept, unsupported_parameter
from outlast.worker.form import form_of

from . import forms, makes, speech, structured
from .conversation import is_file_url
from .parameters import Parameters, asked_as

log = structlog.get_logger()


class Asked:
    """One request's wishes, and which of the client's tools a model has been given."""

    def __init__(
        self,
        request: Request,
        inside_tool: Callable[[UUID | None], bool],
        *,
        strict: bool = False,
        calls_made: int = 0,
    ) -> None:
        """``strict``: what a model cannot be told fails the run. ``calls_made``: of tools, by earlier attempts."""
        body = request.body
        self._inside_tool = inside_tool
        self._instructions = request.instructions
        self._parameters = Parameters(body)
        self._strict = strict
        self._kept: list[str] | None = None if strict else parameters_kept(body)
        """What has no effect, until it is told."""
        tools = _allowed(request.tools, body.get("tool_choice"))
        self._tools = {tool["name"]: _chat_tool(tool) for tool in tools if tool["type"] == FUNCTION}
        self._hosted = [dict(tool) for tool in tools if tool["type"] != FUNCTION]
        self._choice = _choice(body.get("tool_choice"))
        self._one_by_one = body.get("parallel_tool_calls") is False
        self._calls_left = max(body["max_tool_calls"] - calls_made, 0) if body.get("max_tool_calls") else None
        self._bound: set[str] = set()
        self._added: set[str] = set()
        """Options that models have been given."""
        self._form = form_of(body)
        self._spoken = forms.Spoken()
        self._artificial: set[str] = set()

    def is_clients(self, tool: str) -> bool:
        """Whether the client runs this tool; one that the graph has itself under this name comes first."""
        return tool in self._bound

    def is_artificial(self, tool: str) -> bool:
        """Whether there is no such tool: to call it is LangChain's way of writing the graph's structured response."""
        return tool in self._artificial

    def as_answer(self, emission: object) -> object:
        """What models say, or nothing (None), or as reasoning where JSON is asked for and this is none."""
        if self._form is None or not isinstance(emission, Text | Annotation):
            return emission
        return self._spoken.of(emission)

    def withdrawn(self, key: str) -> None:
        """What was said under this key was taken back, and may begin anew."""
        self._spoken.forget(key)

    def parameter_in(self, refusal: str) -> str | None:
        """The request's name of a parameter that an endpoint's refusal speaks of."""
        words = set(re.findall(r"\w+", refusal))
        return next((asked_as(option) for option in sorted(self._added & words)), None)

    @property
    def has_form(self) -> bool:
        return self._form is not None

    def called(self, by_client: bool) -> None:
        """A tool that must be called has been: forced again and again, the model would never come to an end."""
        if self._choice not in (None, "none"):
            self._choice = None
        if self._calls_left and not by_client:
            self._calls_left -= 1

    @contextmanager
    def applied(self) -> Generator[None]:
        """For all models called in this context, and in what it starts."""
        token = _current.set(self)
        try:
            yield
        finally:
            _current.reset(token)

    def concerns(self, model: BaseChatModel, options: Mapping[str, Any], callbacks: Any, tags: Sequence[str]) -> bool:
        """Whether this call writes the answer, rather than data of a given form, or for a tool, or in secret."""
        return (
            "ls_structured_output_format" not in options
            and not speech.is_hidden(tags, model.tags)
            and not self._inside_tool(getattr(callbacks, "parent_run_id", None))
        )

    def options(self, model: BaseChatModel, given: Mapping[str, Any]) -> dict[str, Any]:
        """The call's own options with what was asked for. Doing it twice changes nothing."""
        self._artificial |= structured.artificial_tools()
        unknown = list[str]()
        options = self._with_tools(model, given, unknown)
        added, unknown_parameters = self._parameters.options_for(model, options)
        self._added |= set(added)
        self._added |= {"parallel_tool_calls"} if self._one_by_one else set()
        self._tell_kept([*unknown, *unknown_parameters])
        return {**options, **added, **self._formed(model, given, options)}

    def _with_tools(self, model: BaseChatModel, given: Mapping[str, Any], unknown: list[str]) -> dict[str, Any]:
        """The call's options with the tools that it may have and must use. Adds what cannot be told to ``unknown``."""
        options = {name: value for name, value in given.items() if name not in ("tools", "tool_choice")}
        if self._choice == "none":
            return options
        theirs: list[Any] = [tool for tool in given.get("tools") or () if tool not in self._hosted]
        if self._calls_left == 0:
            theirs = [tool for tool in theirs if self.is_clients(_name(tool) or "")]
        elif "tool_choice" in given:
            options["tool_choice"] = given["tool_choice"]
        names = {_name(tool) for tool in theirs}
        ours = [tool for name, tool in self._tools.items() if name not in names]
        self._bound |= {tool["function"]["name"] for tool in ours}
        one_by_one = self._one_by_one and makes.binds_calls_one_by_one(model)
        if self._one_by_one and not one_by_one:
            unknown.append("parallel_tool_calls")
        tools = theirs
        if ours or (theirs and (self._choice or one_by_one)):
            bound = _bind(model, [*theirs, *ours], self._choice, one_by_one)
            # The provider has formatted all of them; those that the graph had formatted stay as they were.
            tools = [*theirs, *bound.pop("tools", ())[len(theirs) :]]
            options |= bound
        if self._hosted and self._calls_left != 0:
            tools = [*tools, *self._hosted]
            if isinstance(self._choice, dict):
                options["tool_choice"] = self._choice
        return {**options, "tools": tools} if tools else options

    def _tell_kept(self, unknown: Sequence[str]) -> None:
        """Say once in a run what has no effect. Raises AgentError where that is refused."""
        if self._strict and unknown:
            problem = unsupported_parameter(unknown[0])
            raise AgentError(problem.message, code=str(problem.code))
        if self._kept is not None and (kept := [*self._kept, *unknown]):
            log.info("agent.parameters_kept", parameters=kept)
            self._kept = None

    def _formed(self, model: BaseChatModel, given: Mapping[str, Any], options: Mapping[str, Any]) -> dict[str, Any]:
        """A graph's own form comes first. The answer is checked, also that of a model which cannot be told."""
        if self._form is None or forms.has_own(given):
            return {}
        return forms.options_for(model, self._form, options) or {}

    def check_content(
        self, model: BaseChatModel, prompts: Sequence[Sequence[BaseMessage]], options: Mapping[str, Any]
    ) -> None:
        """Raises AgentError for content that this call cannot have, in the request's words."""
        parts: Iterator[Any] = (
            part for prompt in prompts for m in prompt if isinstance(m.content, list) for part in m.content
        )
        if any(map(is_file_url, parts)) and not makes.takes_file_urls(model, options):
            raise AgentError(
                "The model of this agent cannot be given 'input_file.file_url'. Send the file itself as 'file_data', "
                "in a data URL.",
                code="unsupported_content",
            )

    def messages(self, given: Sequence[BaseMessage]) -> list[BaseMessage]:
        """The instructions come after the graph's own."""
        messages = list(given)
        if not self._instructions:
            return messages
        if not messages or not isinstance(messages[0], SystemMessage):
            return [SystemMessage(self._instructions), *messages]
        own: Any = messages[0].content
        if self._instructions in messages[0].text:
            return messages
        added = f"\n\n{self._instructions}"
        content = own + added if isinstance(own, str) else [*own, {"type": "text", "text": added}]
        return [SystemMessage(content), *messages[1:]]


_current: ContextVar[Asked | None] = ContextVar("asked", default=None)


def current() -> Asked | None:
    """What is asked of the models that are called here; None outside of runs."""
    return _current.get()


def _chat_tool(tool: Mapping[str, Any]) -> dict[str, Any]:
    """The Responses API's form of a function, in the one that every LangChain model can bind."""
    function = {name: tool[name] for name in ("name", "description", "strict") if tool.get(name) is not None}
    parameters: dict[str, Any] = tool.get("parameters") or {"type": "object", "properties": {}}
    return {"type": "function", "function": {"description": "", **function, "parameters": parameters}}


def _allowed(tools: Sequence[Mapping[str, Any]], choice: Any) -> Sequence[Mapping[str, Any]]:
    """The request's tools, or those of them that its choice allows."""
    match choice:
        case {"type": "allowed_tools", "tools": [*allowed]}:
            named = [cast("Mapping[str, Any]", tool) for tool in allowed]
            return [tool for tool in tools if any(_is_named(tool, by) for by in named)]
        case _:
            return tools


def _is_named(tool: Mapping[str, Any], by: Mapping[str, Any]) -> bool:
    return by["type"] == tool["type"] and (tool["type"] != FUNCTION or by["name"] == tool["name"])


def _choice(given: Any) -> str | dict[str, Any] | None:
    """In LangChain's words: none, any, or the name of a tool; a provider's own; None when the model may choose."""
    match given:
        case "none":
            return "none"
        case "required" | {"type": "allowed_tools", "mode": "required"}:
            return "any"
        case {"type": "function", "name": str(name)}:
            return name
        case {"type": kind} if kind != ALLOWED_TOOLS:
            return cast("dict[str, Any]", given)
        case _:
            return None


def _name(tool: Any) -> str | None:
    if not isinstance(tool, dict):
        return getattr(tool, "name", None)
    described = cast("dict[str, Any]", tool)
    return (described.get("function") or described).get("name")


def _bind(model: BaseChatModel, tools: list[Any], choice: Any, one_by_one: bool) -> dict[str, Any]:
    """The options that this model's provider wants for these tools."""
    wanted: dict[str, Any] = {"tool_choice": choice} if isinstance(choice, str) else {}
    if one_by_one:
        wanted["parallel_tool_calls"] = False
    try:
        binding: Any = model.bind_tools(tools, **wanted)
    except NotImplementedError:
        raise AgentError("The model of this agent cannot be given tools.", code="tools_not_supported") from None
    return dict(getattr(binding, "kwargs", {}))
