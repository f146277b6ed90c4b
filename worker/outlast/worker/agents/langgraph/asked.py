"""What a request asks of the model: instructions, limits, the client's tools, the form of the answer.

`model_calls` gives it to the model calls of the run.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, cast
from uuid import UUID

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import BaseMessage, SystemMessage

from outlast.agent import AgentError, Annotation, Request, Text
from outlast.worker.form import form_of

from . import forms, speech, structured

_FOR_MODELS = {"temperature": "temperature", "top_p": "top_p", "max_output_tokens": "max_tokens"}
"""The request's name of a parameter, and the one that LangChain's models take."""


class Asked:
    """One request's wishes, and which of the client's tools a model has been given."""

    def __init__(self, request: Request, inside_tool: Callable[[UUID | None], bool]) -> None:
        body = request.body
        self._inside_tool = inside_tool
        self._instructions = request.instructions
        self._parameters = {theirs: body[ours] for ours, theirs in _FOR_MODELS.items() if body.get(ours) is not None}
        self._tools = {tool["name"]: _chat_tool(tool) for tool in request.tools if tool.get("type") == "function"}
        self._choice = _choice(body.get("tool_choice"))
        self._bound: set[str] = set()
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

    @property
    def has_form(self) -> bool:
        return self._form is not None

    def called(self) -> None:
        """A tool that must be called has been: forced again and again, the model would never come to an end."""
        if self._choice not in (None, "none"):
            self._choice = None

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
        options = {**given, **self._parameters, **self._formed(model, given)}
        theirs: list[Any] = list(given.get("tools") or ())
        if self._choice == "none":
            return {name: value for name, value in options.items() if name not in ("tools", "tool_choice")}
        names = {_name(tool) for tool in theirs}
        ours = [tool for name, tool in self._tools.items() if name not in names]
        self._bound |= {tool["function"]["name"] for tool in ours}
        if ours or (theirs and self._choice):
            bound = _bind(model, [*theirs, *ours], self._choice)
            # The provider has formatted all of them; those that the graph had formatted stay as they were.
            bound["tools"] = [*theirs, *bound.get("tools", ())[len(theirs) :]]
            options |= bound
        return options

    def _formed(self, model: BaseChatModel, given: Mapping[str, Any]) -> dict[str, Any]:
        """A graph's own form comes first. The answer is checked, also that of a model which cannot be told."""
        if self._form is None or forms.has_own(given):
            return {}
        return forms.options_for(model, self._form, given) or {}

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


def _choice(given: Any) -> str | None:
    """In LangChain's words: none, any, or the name of a tool; None when the model may choose."""
    match given:
        case "none":
            return "none"
        case "required":
            return "any"
        case {"type": "function", "name": str(name)}:
            return name
        case _:
            return None


def _name(tool: Any) -> str | None:
    if not isinstance(tool, dict):
        return getattr(tool, "name", None)
    described = cast("dict[str, Any]", tool)
    return (described.get("function") or described).get("name")


def _bind(model: BaseChatModel, tools: list[Any], choice: str | None) -> dict[str, Any]:
    """The options that this model's provider wants for these tools."""
    try:
        binding: Any = model.bind_tools(tools, tool_choice=choice) if choice else model.bind_tools(tools)
    except NotImplementedError:
        raise AgentError("The model of this agent cannot be given tools.", code="tools_not_supported") from None
    return dict(getattr(binding, "kwargs", {}))
