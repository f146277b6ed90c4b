"""The offline model: rules behind LangChain's interface of a chat model, so that no graph needs to know."""

from __future__ import annotations

import asyncio
import json
import re
import time
import uuid
from collections.abc import AsyncIterator, Iterator, Sequence
from typing import Any

from langchain_core.callbacks import AsyncCallbackManagerForLLMRun, CallbackManagerForLLMRun
from langchain_core.language_models import BaseChatModel, LanguageModelInput
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage, HumanMessage, ToolMessage
from langchain_core.messages.tool import ToolCall, tool_call, tool_call_chunk
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
from langchain_core.runnables import Runnable
from langchain_core.utils.function_calling import convert_to_openai_tool

from .answers import follow, say
from .rules import plan
from .steps import Step

__all__ = ["LookupModel"]

OPENING = "Offline lookup (no language model): "

# A word with the space before it, or a whole numbered line of a file.
_PIECE = re.compile(r"\n+ *\d+  [^\n]*|\s*\S+|\s+")


class LookupModel(BaseChatModel):
    """Calls tools by the rules of `plan`, then says what they returned, word by word.

    It knows nothing but the messages it is given: called again with the same ones, in another process, it goes on in
    the same way.
    """

    title: str
    """What a person calls the files."""
    pace_seconds: float = 0.0

    @property
    def _llm_type(self) -> str:
        return "offline-lookup"

    def bind_tools(
        self, tools: Sequence[Any], *, tool_choice: str | None = None, **kwargs: Any
    ) -> Runnable[LanguageModelInput, AIMessage]:
        offered = [] if tool_choice == "none" else [convert_to_openai_tool(each) for each in tools]
        return self.bind(tools=offered, **kwargs)

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        content, calls = self._reply(messages, **kwargs)
        return ChatResult(generations=[ChatGeneration(message=AIMessage(content=content, tool_calls=calls))])

    def _stream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> Iterator[ChatGenerationChunk]:
        for chunk in self._chunks(messages, **kwargs):
            yield ChatGenerationChunk(message=chunk)
            if chunk.content and self.pace_seconds:
                time.sleep(self.pace_seconds)

    async def _astream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> AsyncIterator[ChatGenerationChunk]:
        for chunk in self._chunks(messages, **kwargs):
            yield ChatGenerationChunk(message=chunk)
            if chunk.content and self.pace_seconds:
                await asyncio.sleep(self.pace_seconds)

    def _chunks(self, messages: Sequence[BaseMessage], **kwargs: Any) -> Iterator[AIMessageChunk]:
        """Word by word, or call by call."""
        content, calls = self._reply(messages, **kwargs)
        for index, call in enumerate(calls):
            arguments = json.dumps(call["args"], ensure_ascii=False)
            chunk = tool_call_chunk(name=call["name"], args=arguments, id=call["id"], index=index)
            yield AIMessageChunk(content="", tool_call_chunks=[chunk])
        yield from (AIMessageChunk(content=piece) for piece in _PIECE.findall(content))

    def _reply(
        self, messages: Sequence[BaseMessage], tools: Sequence[Any] = (), **_: Any
    ) -> tuple[str, list[ToolCall]]:
        steps, said = _next(messages, frozenset(each["function"]["name"] for each in tools))
        if steps:
            return "", [_call(step) for step in steps]
        return OPENING + ("\n\n".join(said) or self._abilities()), []

    def _abilities(self) -> str:
        return (
            f"Ask about the files in {self.title}, and the passages that match best are quoted. "
            "“read FILE 10-20” shows lines of one of them, “what time is it in Tokyo?” asks the clock, "
            "and “12 * (3 + 4)” the calculator."
        )


def _next(messages: Sequence[BaseMessage], offered: frozenset[str]) -> tuple[Sequence[Step], Sequence[str]]:
    """The tools to call now; when there are none, what to say.

    Each message of this model that called tools answers to the steps that were due then: first those that the question
    asks for, then those that follow from their results.
    """
    asked = max((place for place, each in enumerate(messages) if isinstance(each, HumanMessage)), default=-1)
    since = messages[asked + 1 :]
    results = {each.tool_call_id: each for each in since if isinstance(each, ToolMessage)}
    turns = (each for each in since if isinstance(each, AIMessage) and each.tool_calls)
    said: list[str] = []
    steps = plan(messages[asked].text) if asked >= 0 else ()
    while steps := [step for step in steps if step.tool in offered]:
        turn = next(turns, None)
        if turn is None:
            return steps, ()
        following: list[Step] = []
        for step, call in zip(steps, turn.tool_calls, strict=False):
            if (result := results.get(call["id"] or "")) and result.status != "error":
                said.append(say(step, result.text))
                following += follow(step, result.text)
            elif result:
                said.append(f"The {step.tool} tool failed: {result.text}.")
        steps = following
    return (), [each for each in said if each]


def _call(step: Step) -> ToolCall:
    return tool_call(name=step.tool, args=dict(step.arguments), id=f"call_{uuid.uuid4().hex}")
