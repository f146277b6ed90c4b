"""The steps, model calls and tool calls of a graph as spans below its attempt: how long, which model, how many tokens.

No word of what is said is in them. Names follow OpenTelemetry's conventions for generative AI.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from uuid import UUID

from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.messages import BaseMessage
from langchain_core.outputs import ChatGeneration, LLMResult
from langgraph.errors import GraphBubbleUp

from outlast.shared import tracing
from outlast.shared.tracing import Attributes, Kind, Span, Tracer

_ASKED = {
    "ls_provider": "gen_ai.provider.name",
    "ls_model_name": "gen_ai.request.model",
    "ls_temperature": "gen_ai.request.temperature",
    "ls_max_tokens": "gen_ai.request.max_tokens",
}
_USAGE = {"input_tokens": "gen_ai.usage.input_tokens", "output_tokens": "gen_ai.usage.output_tokens"}


class Spans(BaseCallbackHandler):
    run_inline = True  # in the context of the code that calls: what it calls in turn is below

    def __init__(self, tracer: Tracer, attempt: Span) -> None:
        self._tracer = tracer
        self._attempt = attempt
        self._open: dict[UUID, Span] = {}
        self._parents: dict[UUID, UUID | None] = {}

    def close(self) -> None:
        """The attempt is over: what has not ended never will."""
        for run_id in list(self._open):
            self._end(run_id, "CancelledError")

    # -- steps ---------------------------------------------------------------------------------------------------------

    def on_chain_start(
        self,
        serialized: Mapping[str, Any],
        inputs: Any,
        *,
        run_id: UUID,
        parent_run_id: UUID | None = None,
        metadata: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        self._parents[run_id] = parent_run_id
        node = metadata.get("langgraph_node") if metadata else None
        if metadata and node is not None and kwargs.get("name") == node:
            step = {"langgraph.node": str(node), "langgraph.step": int(metadata.get("langgraph_step", 0))}
            self._start(f"step {node}", run_id, parent_run_id, step)

    def on_chain_end(self, outputs: Any, *, run_id: UUID, **kwargs: Any) -> None:
        self._end(run_id)

    def on_chain_error(self, error: BaseException, *, run_id: UUID, **kwargs: Any) -> None:
        self._end(run_id, None if isinstance(error, GraphBubbleUp) else type(error).__name__)

    # -- models --------------------------------------------------------------------------------------------------------

    def on_chat_model_start(
        self,
        serialized: Mapping[str, Any],
        messages: Sequence[Sequence[BaseMessage]],
        *,
        run_id: UUID,
        parent_run_id: UUID | None = None,
        metadata: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        told = metadata or {}
        asked = {
            name: told[theirs] for theirs, name in _ASKED.items() if isinstance(told.get(theirs), str | int | float)
        }
        model = asked.get("gen_ai.request.model", kwargs.get("name") or "model")
        attributes = {"gen_ai.operation.name": "chat", **asked}
        self._start(f"chat {model}", run_id, parent_run_id, attributes, kind="client")

    def on_llm_end(self, response: LLMResult, *, run_id: UUID, **kwargs: Any) -> None:
        generation = response.generations[0][0] if response.generations and response.generations[0] else None
        if (span := self._open.get(run_id)) and isinstance(generation, ChatGeneration):
            usage: Mapping[str, Any] = getattr(generation.message, "usage_metadata", None) or {}
            span.set({name: usage[theirs] for theirs, name in _USAGE.items() if theirs in usage})
            if model := generation.message.response_metadata.get("model_name"):
                span.set({"gen_ai.response.model": str(model)})
        self._end(run_id)

    def on_llm_error(self, error: BaseException, *, run_id: UUID, **kwargs: Any) -> None:
        self._end(run_id, type(error).__name__)

    # -- tools ---------------------------------------------------------------------------------------------------------

    def on_tool_start(
        self,
        serialized: Mapping[str, Any],
        input_str: str,
        *,
        run_id: UUID,
        parent_run_id: UUID | None = None,
        tool_call_id: str | None = None,
        **kwargs: Any,
    ) -> None:
        tool = str(kwargs.get("name") or serialized.get("name") or "tool")
        attributes = {"gen_ai.operation.name": "execute_tool", "gen_ai.tool.name": tool}
        if tool_call_id is not None:
            attributes["gen_ai.tool.call.id"] = tool_call_id
        self._start(f"execute_tool {tool}", run_id, parent_run_id, attributes)

    def on_tool_end(self, output: Any, *, run_id: UUID, **kwargs: Any) -> None:
        self._end(run_id)

    def on_tool_error(self, error: BaseException, *, run_id: UUID, **kwargs: Any) -> None:
        self._end(run_id, None if isinstance(error, GraphBubbleUp) else type(error).__name__)

    # -- their tree ----------------------------------------------------------------------------------------------------

    def _start(
        self, name: str, run_id: UUID, parent_run_id: UUID | None, attributes: Attributes, kind: Kind = "internal"
    ) -> None:
        self._parents[run_id] = parent_run_id
        parent = self._around(parent_run_id)
        self._open[run_id] = span = self._tracer.start(name, parent=parent, kind=kind, attributes=attributes)
        span.enter()

    def _around(self, run_id: UUID | None) -> Span:
        while run_id is not None:
            if span := self._open.get(run_id):
                return span
            run_id = self._parents.get(run_id)
        return self._attempt

    def _end(self, run_id: UUID, error: str | None = None) -> None:
        self._parents.pop(run_id, None)
        if span := self._open.pop(run_id, None):
            span.end(error)


def begun_spans() -> list[Spans]:
    """The spans of what the graph does, if this attempt is traced."""
    tracer, attempt = tracing.tracer(), tracing.current_attempt()
    return [] if tracer is None or attempt is None else [Spans(tracer, attempt)]
