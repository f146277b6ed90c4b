"""What a request asks of the model, given to the model calls of its run: instructions, limits, the client's tools.

A graph makes its models itself, and nothing in LangChain lets a caller reach them. So the four methods of LangChain's
base class that every call goes through are wrapped, once in a process; a context variable says whose run it is.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, cast
from uuid import UUID

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import BaseMessage, SystemMessage
from langchain_core.runnables.config import ensure_config

from outlast.agent import AgentError, Request

from . import speech

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

    def is_clients(self, tool: str) -> bool:
        """Whether the client runs this tool; one that the graph has itself under this name comes first."""
        return tool in self._bound

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
        options = {**given, **self._parameters}
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


def _amended(
    model: BaseChatModel, prompts: list[list[BaseMessage]], options: dict[str, Any], callbacks: Any, tags: Any
) -> tuple[list[list[BaseMessage]], dict[str, Any]]:
    asked = _current.get()
    if asked is None or not asked.concerns(model, options, callbacks, tags or ()):
        return prompts, options
    return [asked.messages(prompt) for prompt in prompts], asked.options(model, options)


def _wrap() -> None:
    generate, agenerate = BaseChatModel.generate, BaseChatModel.agenerate
    stream, astream = BaseChatModel.stream, BaseChatModel.astream

    def wrapped_generate(
        self: BaseChatModel, messages: Any, stop: Any = None, callbacks: Any = None, *, tags: Any = None, **options: Any
    ) -> Any:
        messages, options = _amended(self, messages, options, callbacks, tags)
        return generate(self, messages, stop, callbacks, tags=tags, **options)

    async def wrapped_agenerate(
        self: BaseChatModel, messages: Any, stop: Any = None, callbacks: Any = None, *, tags: Any = None, **options: Any
    ) -> Any:
        messages, options = _amended(self, messages, options, callbacks, tags)
        return await agenerate(self, messages, stop, callbacks, tags=tags, **options)

    def prompt(model: Any, input: Any, config: Any, options: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        full = ensure_config(config)
        messages = model._convert_input(input).to_messages()
        amended, options = _amended(model, [messages], options, full.get("callbacks"), full.get("tags"))
        return amended[0], options

    def wrapped_stream(self: BaseChatModel, input: Any, config: Any = None, **options: Any) -> Any:
        input, options = prompt(self, input, config, options)
        return stream(self, input, config, **options)

    def wrapped_astream(self: BaseChatModel, input: Any, config: Any = None, **options: Any) -> Any:
        input, options = prompt(self, input, config, options)
        return astream(self, input, config, **options)

    base = cast("Any", BaseChatModel)
    base.generate, base.agenerate = wrapped_generate, wrapped_agenerate
    base.stream, base.astream = wrapped_stream, wrapped_astream


_wrap()
