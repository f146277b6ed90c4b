"""What a run asks of its models, given to each of their calls.

A graph makes its models itself, and nothing in LangChain lets a caller reach them. So the four methods of LangChain's
base class that every call goes through are wrapped, once in a process; a context variable says whose run it is.
"""

from __future__ import annotations

from collections.abc import Generator
from contextlib import aclosing, closing, contextmanager
from typing import Any, cast

import structlog
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import BaseMessage
from langchain_core.runnables.config import ensure_config

from outlast.agent import AgentError

from . import asked, counting

log = structlog.get_logger()

_REFUSALS = (400, 422)
_WORDS = ("response_format", "text.format", "json_schema", "json_object", "output_config", "output_format")


def _amended(
    model: BaseChatModel, prompts: list[list[BaseMessage]], options: dict[str, Any], callbacks: Any, tags: Any
) -> tuple[list[list[BaseMessage]], dict[str, Any]]:
    wishes = asked.current()
    if wishes is None or not wishes.concerns(model, options, callbacks, tags or ()):
        return prompts, options
    amended = wishes.options(model, options)
    wishes.check_content(model, prompts, amended)
    return [wishes.messages(prompt) for prompt in prompts], amended


def _on_trial(model: BaseChatModel) -> bool:
    return asked.current() is not None and counting.ask(model)


@contextmanager
def _explained() -> Generator[None]:
    """An endpoint's refusal of what the request asks for, in words for the client."""
    try:
        yield
    except Exception as error:
        wishes, said = asked.current(), str(error)
        if wishes is None or getattr(error, "status_code", None) not in _REFUSALS:
            raise
        if wishes.has_form and any(word in said for word in _WORDS):
            log.warning("agent.form_refused", error=said)
            raise AgentError(
                "The model's endpoint refuses the form that 'text.format' asks for. Ask for another form, or give the "
                "agent a model that can keep to it.",
                code="response_format_not_supported",
            ) from error
        if (name := wishes.parameter_in(said)) is not None:
            log.warning("agent.parameter_refused", parameter=name, error=said)
            raise AgentError(
                f"The model's endpoint refuses '{name}'. Leave it out or change it, or give the agent another model.",
                code="unsupported_parameter",
            ) from error
        raise


def wrap() -> None:
    """Wrap the methods, for the rest of the process."""
    base = cast("Any", BaseChatModel)
    base.generate, base.agenerate = _generating(BaseChatModel.generate), _agenerating(BaseChatModel.agenerate)
    base.stream, base.astream = _streaming(BaseChatModel.stream), _astreaming(BaseChatModel.astream)


def _generating(generate: Any) -> Any:
    def wrapped(
        self: BaseChatModel, messages: Any, stop: Any = None, callbacks: Any = None, *, tags: Any = None, **options: Any
    ) -> Any:
        messages, options = _amended(self, messages, options, callbacks, tags)
        trial = _on_trial(self)
        with _explained():
            try:
                result = generate(self, messages, stop, callbacks, tags=tags, **options)
                if trial:
                    counting.answered(self)
                return result
            except Exception as error:
                if not trial:
                    raise
                with counting.without(self, error):
                    return generate(self, messages, stop, callbacks, tags=tags, **options)

    return wrapped


def _agenerating(agenerate: Any) -> Any:
    async def wrapped(
        self: BaseChatModel, messages: Any, stop: Any = None, callbacks: Any = None, *, tags: Any = None, **options: Any
    ) -> Any:
        messages, options = _amended(self, messages, options, callbacks, tags)
        trial = _on_trial(self)
        with _explained():
            try:
                result = await agenerate(self, messages, stop, callbacks, tags=tags, **options)
                if trial:
                    counting.answered(self)
                return result
            except Exception as error:
                if not trial:
                    raise
                with counting.without(self, error):
                    return await agenerate(self, messages, stop, callbacks, tags=tags, **options)

    return wrapped


def _prompt(model: Any, input: Any, config: Any, options: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    full = ensure_config(config)
    messages = model._convert_input(input).to_messages()
    amended, options = _amended(model, [messages], options, full.get("callbacks"), full.get("tags"))
    return amended[0], options


def _streaming(stream: Any) -> Any:
    def wrapped(self: BaseChatModel, input: Any, config: Any = None, **options: Any) -> Any:
        input, options = _prompt(self, input, config, options)
        trial, begun = _on_trial(self), False
        with _explained():
            try:
                with closing(stream(self, input, config, **options)) as chunks:
                    for chunk in chunks:
                        begun = True
                        yield chunk
                if trial:
                    counting.answered(self)
            except Exception as error:
                if begun or not trial:
                    raise
                with counting.without(self, error):
                    yield from stream(self, input, config, **options)

    return wrapped


def _astreaming(astream: Any) -> Any:
    async def wrapped(self: BaseChatModel, input: Any, config: Any = None, **options: Any) -> Any:
        input, options = _prompt(self, input, config, options)
        trial, begun = _on_trial(self), False
        with _explained():
            try:
                async with aclosing(astream(self, input, config, **options)) as chunks:
                    async for chunk in chunks:
                        begun = True
                        yield chunk
                if trial:
                    counting.answered(self)
            except Exception as error:
                if begun or not trial:
                    raise
                with counting.without(self, error):
                    async with aclosing(astream(self, input, config, **options)) as chunks:
                        async for chunk in chunks:
                            yield chunk

    return wrapped
