"""Graphs to serve in tests, and a chat model that answers by rules and keeps what it was given."""

from __future__ import annotations

import json
import warnings
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, TypedDict

import langgraph.prebuilt
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage, HumanMessage, ToolMessage
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
from langchain_core.utils.function_calling import convert_to_openai_tool
from langgraph.graph import END, START, StateGraph, add_messages
from langgraph.prebuilt import ToolNode, tools_condition
from pydantic import PrivateAttr

Answer = Callable[[Sequence[BaseMessage], dict[str, Any]], AIMessage]


@dataclass
class Call:
    """One call of the model, as it reached it."""

    messages: list[BaseMessage]
    options: dict[str, Any] = field(default_factory=dict[str, Any])

    @property
    def tools(self) -> list[str]:
        return [tool["function"]["name"] for tool in self.options.get("tools", ())]


class RuleModel(BaseChatModel):
    """Streams what its rule answers, word by word; binds tools as OpenAI's models do."""

    answer: Answer
    streams: bool = True
    _calls: list[Call] = PrivateAttr(default_factory=list)

    @property
    def calls(self) -> list[Call]:
        return self._calls

    @property
    def _llm_type(self) -> str:
        return "rule"

    def bind_tools(self, tools: Sequence[Any], *, tool_choice: str | None = None, **options: Any) -> Any:
        described = [convert_to_openai_tool(tool) for tool in tools]
        chosen = {"tool_choice": tool_choice} if tool_choice else {}
        return self.bind(tools=described, **chosen, **options)

    def _said(self, messages: list[BaseMessage], options: dict[str, Any]) -> AIMessage:
        self._calls.append(Call(list(messages), options))
        return self.answer(messages, options)

    def _generate(self, messages: Any, stop: Any = None, run_manager: Any = None, **options: Any) -> ChatResult:
        return ChatResult(generations=[ChatGeneration(message=self._said(messages, options))])

    def _stream(
        self, messages: Any, stop: Any = None, run_manager: Any = None, **options: Any
    ) -> Iterator[ChatGenerationChunk]:
        for chunk in _chunks(self._said(messages, options)):
            if run_manager:
                run_manager.on_llm_new_token(chunk.text, chunk=chunk)
            yield chunk

    async def _astream(
        self, messages: Any, stop: Any = None, run_manager: Any = None, **options: Any
    ) -> AsyncIterator[ChatGenerationChunk]:
        for chunk in _chunks(self._said(messages, options)):
            if run_manager:
                await run_manager.on_llm_new_token(chunk.text, chunk=chunk)
            yield chunk

    def _should_stream(self, **options: Any) -> bool:
        return self.streams and super()._should_stream(**options)


def create_react_agent(model: Any, tools: Sequence[Any], **options: Any) -> Any:
    """LangGraph's own, which is deprecated and in most of the graphs that are about."""
    with warnings.catch_warnings(action="ignore"):
        return langgraph.prebuilt.create_react_agent(model, tools, **options)


def _chunks(message: AIMessage) -> Iterator[ChatGenerationChunk]:
    text = message.content if isinstance(message.content, str) else ""
    pieces: list[Any] = text.split(" ") if text else list(message.content)
    for number, piece in enumerate(pieces):
        content = (piece if number == 0 else f" {piece}") if isinstance(piece, str) else [piece]
        yield ChatGenerationChunk(message=AIMessageChunk(content=content))
    calls = [
        {"name": call["name"], "args": json.dumps(call["args"]), "id": call["id"], "index": number}
        for number, call in enumerate(message.tool_calls)
    ]
    yield ChatGenerationChunk(
        message=AIMessageChunk(content="", tool_call_chunks=calls, usage_metadata=message.usage_metadata)  # type: ignore[arg-type]
    )


class Conversation(TypedDict):
    messages: Annotated[list[BaseMessage], add_messages]


def calling(model: BaseChatModel, *tools: Any, on_tool_errors: bool = False) -> StateGraph[Any, Any, Any, Any]:
    """The usual agent: a model, its tools, and back to the model."""
    bound = model.bind_tools(list(tools)) if tools else model

    async def agent(state: Conversation) -> dict[str, Any]:
        return {"messages": [await bound.ainvoke(state["messages"])]}

    graph = StateGraph(Conversation)
    graph.add_node("agent", agent)
    graph.add_edge(START, "agent")
    if tools:
        graph.add_node("tools", ToolNode(list(tools), handle_tool_errors=on_tool_errors))
        graph.add_conditional_edges("agent", tools_condition)
        graph.add_edge("tools", "agent")
    else:
        graph.add_edge("agent", END)
    return graph


def call(tool: str, call_id: str, **arguments: Any) -> dict[str, Any]:
    """A tool call, as a message holds it."""
    return {"name": tool, "args": arguments, "id": call_id, "type": "tool_call"}


def function(name: str) -> dict[str, Any]:
    """A function that the client offers."""
    return {
        "type": "function",
        "name": name,
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
    }


def last_human(messages: Sequence[BaseMessage]) -> str:
    return next((m.text for m in reversed(messages) if isinstance(m, HumanMessage)), "")


def tool_results(messages: Sequence[BaseMessage]) -> list[str]:
    """What tools have answered since the last question."""
    results: list[str] = []
    for message in reversed(messages):
        if isinstance(message, HumanMessage):
            break
        if isinstance(message, ToolMessage):
            results.insert(0, message.text)
    return results
