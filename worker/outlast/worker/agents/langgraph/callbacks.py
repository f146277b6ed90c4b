"""What a graph says, taken from LangChain's callbacks: in program order, each piece before the code goes on.

Not from LangGraph's own stream: that is a queue, behind which checkpoints may get ahead of what has been said. Here
code that speaks waits while too much is not stored, and no node ends before its words are: no checkpoint can then
hold a step whose words are lost.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from langchain_core.callbacks import AsyncCallbackHandler
from langchain_core.messages import AIMessage, BaseMessage, ToolMessage
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, LLMResult
from langchain_core.runnables.config import var_child_runnable_config
from langchain_core.tracers._streaming import _StreamingCallbackHandler
from langgraph.constants import TAG_NOSTREAM

from outlast.agent import ClientCall, Close, State, Text, ToolCall, ToolResult
from outlast.shared.output.items import Path

from . import speech, structured
from .listener import Listener
from .survival import path_of

_INTERNAL = {"summarization"}  # what LangChain's own middleware marks as not part of the answer


@dataclass(slots=True)
class _Model:
    """A call of a model that is under way."""

    path: Path
    key: str | None = None
    """What its message is said under; None before its first piece."""


def _on_its_loop(method: Any) -> Any:
    """Do it on the run's event loop: code in threads has its callbacks called on a loop of their own."""

    @functools.wraps(method)
    async def hop(callbacks: Callbacks, *args: Any, **kwargs: Any) -> None:
        called = method(callbacks, *args, **kwargs)
        if asyncio.get_running_loop() is not callbacks.loop:
            called = asyncio.wrap_future(asyncio.run_coroutine_threadsafe(called, callbacks.loop))
        await called

    return hop


# The base class makes `model.ainvoke()` stream, without a sign of it in the graph's code.
class Callbacks(AsyncCallbackHandler, _StreamingCallbackHandler[Any]):
    run_inline = True
    raise_error = True

    def __init__(self, listener: Listener, said: Collection[str] = ()) -> None:
        """``said`` are keys of what earlier attempts said that survives: it is not said again."""
        self.loop = asyncio.get_running_loop()
        self._listener = listener
        self._said = set(said)
        self._steps: dict[str, int] = {}
        self._nodes: dict[UUID, Path] = {}
        self._models: dict[UUID, _Model] = {}  # those whose words are part of the answer
        self._tools: dict[UUID, Path] = {}
        self._call_ids: dict[UUID, str] = {}
        self._parents: dict[UUID, UUID | None] = {}
        self._broken: dict[str, str] = {}  # by task: what a model was saying when it failed
        self._heard: set[tuple[str, str]] = set()  # task and text of what models have said
        self._calls: dict[str, ToolCall] = {}

    def tap_output_aiter(self, run_id: UUID, output: Any) -> Any:
        return output

    def tap_output_iter(self, run_id: UUID, output: Any) -> Any:
        return output

    def inside_tool(self, run_id: UUID | None) -> bool:
        """Whether this is done on behalf of a tool: what a tool's own models say is not the answer."""
        while run_id is not None:
            if run_id in self._tools:
                return True
            run_id = self._parents.get(run_id)
        return False

    def current_call(self) -> str | None:
        """The id of the tool call on whose behalf this is asked, in whatever task or thread."""
        config = var_child_runnable_config.get()
        run_id: UUID | None = getattr(config.get("callbacks"), "parent_run_id", None) if config else None
        while run_id is not None:
            if run_id in self._call_ids:
                return self._call_ids[run_id]
            run_id = self._parents.get(run_id)
        return None

    # -- models --------------------------------------------------------------------------------------------------------

    @_on_its_loop
    async def on_chat_model_start(
        self,
        serialized: Mapping[str, Any],
        messages: Sequence[Sequence[BaseMessage]],
        *,
        run_id: UUID,
        parent_run_id: UUID | None = None,
        tags: Sequence[str] | None = None,
        metadata: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        shown = (
            metadata is not None
            and "langgraph_checkpoint_ns" in metadata
            and TAG_NOSTREAM not in (tags or ())
            and metadata.get("lc_source") not in _INTERNAL
            and "ls_structured_output_format" not in (kwargs.get("options") or {})
            and not self.inside_tool(parent_run_id)
        )
        if shown and metadata:
            path = path_of(metadata, self._steps)
            self._models[run_id] = _Model(path)
            if broken := self._broken.pop(path[-1]["task"], None):  # the same step tries again
                await self._listener.retract(broken)

    @_on_its_loop
    async def on_llm_new_token(
        self, token: Any, *, chunk: Any = None, run_id: UUID, parent_run_id: UUID | None = None, **kwargs: Any
    ) -> None:
        model = self._models.get(run_id)
        if model is not None and isinstance(chunk, ChatGenerationChunk) and isinstance(chunk.message, AIMessage):
            model.key = model.key or speech.id_of(chunk.message)  # later chunks may come with other ids
            await self._say(chunk.message, model.key, model.path)

    @_on_its_loop
    async def on_llm_end(
        self, response: LLMResult, *, run_id: UUID, parent_run_id: UUID | None = None, **kwargs: Any
    ) -> None:
        model = self._models.pop(run_id, None)
        generation = response.generations[0][0] if response.generations and response.generations[0] else None
        if not isinstance(generation, ChatGeneration):
            return
        if spent := speech.usage(generation.message):
            await self._listener.emit(spent)
        if model is not None and isinstance(generation.message, AIMessage):
            await self._finish(generation.message, model.path, streamed_as=model.key)

    async def on_llm_error(self, error: BaseException, *, run_id: UUID, **kwargs: Any) -> None:
        model = self._models.pop(run_id, None)
        if model is not None and model.key is not None:
            self._broken[model.path[-1]["task"]] = model.key

    # -- tools ---------------------------------------------------------------------------------------------------------

    @_on_its_loop
    async def on_tool_start(
        self,
        serialized: Mapping[str, Any],
        input_str: str,
        *,
        run_id: UUID,
        parent_run_id: UUID | None = None,
        metadata: Mapping[str, Any] | None = None,
        tool_call_id: str | None = None,
        **kwargs: Any,
    ) -> None:
        if tool_call_id is not None:
            self._call_ids[run_id] = tool_call_id
        self._parents[run_id] = parent_run_id
        placed = metadata is not None and "langgraph_checkpoint_ns" in metadata
        self._tools[run_id] = path_of(metadata, self._steps) if placed and metadata else ()

    @_on_its_loop
    async def on_tool_end(self, output: Any, *, run_id: UUID, parent_run_id: UUID | None = None, **kwargs: Any) -> None:
        path = self._leave_tool(run_id)
        if not self.inside_tool(parent_run_id):
            for message in speech.messages_in(output):
                if isinstance(message, ToolMessage):
                    await self._answer(message, path)

    async def on_tool_error(self, error: BaseException, *, run_id: UUID, **kwargs: Any) -> None:
        self._leave_tool(run_id)  # the node may make a message of it

    def _leave_tool(self, run_id: UUID) -> Path:
        self._call_ids.pop(run_id, None)
        self._parents.pop(run_id, None)
        return self._tools.pop(run_id, ())

    # -- nodes ---------------------------------------------------------------------------------------------------------

    @_on_its_loop
    async def on_chain_start(
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
        if not metadata or "langgraph_checkpoint_ns" not in metadata:
            return
        task = str(metadata["langgraph_checkpoint_ns"]).rpartition("|")[2].rpartition(":")[2]
        self._steps.setdefault(task, metadata["langgraph_step"])
        if kwargs.get("name") == metadata.get("langgraph_node"):
            self._nodes[run_id] = path_of(metadata, self._steps)
            self._know(inputs)

    @_on_its_loop
    async def on_chain_end(
        self, outputs: Any, *, run_id: UUID, parent_run_id: UUID | None = None, **kwargs: Any
    ) -> None:
        self._parents.pop(run_id, None)
        path = self._nodes.pop(run_id, None)
        if path is None:
            return
        if not self.inside_tool(parent_run_id):
            for message in speech.messages_in(outputs):
                if isinstance(message, ToolMessage):
                    await self._answer(message, path)
                elif isinstance(message, AIMessage):
                    await self._finish(message, path)
        if len(path) == 1 and (answer := structured.answer_in(outputs, (text for _, text in self._heard))):
            text, key = answer
            if key not in self._said:
                self._said.add(key)
                await self._listener.emit(Text(text, key), path)
                await self._listener.emit(Close(key))
        if len(path) == 1 and (values := speech.values_in(outputs)):
            await self._listener.emit(State(values), path)
        await self._listener.flush()

    async def on_chain_error(self, error: BaseException, *, run_id: UUID, **kwargs: Any) -> None:
        self._nodes.pop(run_id, None)
        self._parents.pop(run_id, None)

    # -- what is said --------------------------------------------------------------------------------------------------

    def _know(self, inputs: Any) -> None:
        """What a node is given has been said before."""
        for message in speech.messages_in(inputs):
            if isinstance(message, ToolMessage):
                self._said.add(message.tool_call_id)
            elif isinstance(message, AIMessage):
                self._calls |= {call.call_id: call for call in speech.calls(message)}
            if message.id:
                self._said.add(message.id)

    async def _say(self, message: AIMessage, key: str, path: Path) -> None:
        for piece in speech.pieces(message, key):
            await self._listener.emit(piece, path)

    async def _finish(self, message: AIMessage, path: Path, streamed_as: str | None = None) -> None:
        """The message is whole: say it, unless that has been done, and the calls in it."""
        key = speech.id_of(message)
        heard = (path[-1]["task"], message.text)
        if key in self._said or (streamed_as is None and not message.tool_calls and heard in self._heard):
            return  # also when a node makes a message of its own of what its model has said
        self._said.add(key)
        self._heard.add(heard)
        if streamed_as is None:
            await self._say(message, key, path)
        await self._listener.emit(Close(streamed_as or key))
        for call in speech.calls(message):
            if self._listener.is_artificial(call.name):
                self._said.add(call.call_id)  # LangChain's answer to it is not shown either
                continue
            by_client = self._listener.is_clients(call.name)
            if by_client:
                await self._listener.emit(ClientCall(call.name, call.arguments, call.call_id), path)
            else:
                self._calls[call.call_id] = call
                await self._listener.emit(call, path)
            self._listener.called(by_client)

    async def _answer(self, message: ToolMessage, path: Path) -> None:
        call_id = message.tool_call_id
        if call_id in self._said:
            return
        self._said.add(call_id)
        if not self._listener.is_open(call_id):  # it was called in an earlier attempt, or not by a model
            await self._listener.emit(self._calls.get(call_id) or ToolCall(message.name or "tool", {}, call_id), path)
        output = speech.output_of(message)
        failed = message.status == "error"
        await self._listener.emit(ToolResult(call_id, "" if failed else output, output if failed else None), path)
