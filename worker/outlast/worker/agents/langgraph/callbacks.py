"""What a graph does, taken from LangChain's callbacks in program order, from any thread and any loop.

Not from LangGraph's own stream: that is a queue, behind which checkpoints may get ahead of what has been told.

`Callbacks` is synchronous, so LangChain calls it where the code is: on the run's loop, in a thread, or within a
synchronous call that holds up the loop. It never waits for the loop; what it hears is put in a queue, which the loop
works off. `Pace` waits where the code can wait: while too much is not stored, and at the end of each node.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import Any
from uuid import UUID

from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.messages import AIMessage, BaseMessage, ToolMessage
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, LLMResult
from langchain_core.runnables.config import var_child_runnable_config
from langchain_core.tracers._streaming import _StreamingCallbackHandler
from langgraph.errors import GraphBubbleUp

from outlast.agent import State
from outlast.shared.output.items import Item, Path

from . import speech, structured
from .listener import Listener
from .loop_watch import LoopWatch
from .pace import Pace
from .positions import Positions
from .survival import path_of
from .transcript import Transcript
from .under_way import Model, Tool

_UNHEARD = 256  # what a thread may say before the loop has heard of it
_INTERNAL = {"summarization"}  # what LangChain's own middleware marks as not part of the answer


# The base class makes `model.ainvoke()` stream, without a sign of it in the graph's code.
class Callbacks(BaseCallbackHandler, _StreamingCallbackHandler[Any]):
    run_inline = True
    raise_error = True

    def __init__(self, listener: Listener, surviving: Sequence[Item] = (), *, was_corrected: bool = False) -> None:
        """``surviving`` is what earlier attempts told that still counts: it is not told again."""
        self.transcript = Transcript(listener, surviving, was_corrected=was_corrected)
        self.pace = Pace(self, listener)
        self.loop = asyncio.get_running_loop()
        self._thread = threading.get_ident()
        self._watch = LoopWatch(self.loop)
        self._listener = listener
        self._queue: deque[Callable[[], None]] = deque()
        self._failure: Exception | None = None
        self._steps: dict[str, int] = {}
        self._positions = Positions()
        self.nodes: dict[UUID, Path] = {}
        self._models: dict[UUID, Model] = {}  # those whose words are part of the answer
        self._tools: dict[UUID, Tool] = {}
        self._parents: dict[UUID, UUID | None] = {}

    def tap_output_aiter(self, run_id: UUID, output: Any) -> Any:
        return output

    def tap_output_iter(self, run_id: UUID, output: Any) -> Any:
        return output

    def inside_tool(self, run_id: UUID | None) -> bool:
        """Whether this is done on behalf of a tool: what a tool's own models say is not the answer."""
        return self._around(run_id) is not None

    def current_position(self) -> str | None:
        """The identity of the tool call on whose behalf this is asked, in whatever task or thread."""
        config = var_child_runnable_config.get()
        tool = self._around(getattr(config.get("callbacks"), "parent_run_id", None) if config else None)
        return tool.position if tool else None

    def _around(self, run_id: UUID | None) -> Tool | None:
        """The innermost tool that a callback's run is part of."""
        while run_id is not None:
            if tool := self._tools.get(run_id):
                return tool
            run_id = self._parents.get(run_id)
        return None

    # -- from any thread to the loop -----------------------------------------------------------------------------------

    def hear(self) -> None:
        """Work off the queue, on the loop. Raises what one of its parts raises, once more for each that comes after."""
        while self._queue and self._failure is None:
            try:
                self._queue.popleft()()
            except Exception as error:  # noqa: BLE001 — raised below, and in the graph's code
                self._failure = error
        if self._failure is not None:
            raise self._failure

    def _do(self, part: Callable[[], None]) -> None:
        self._queue.append(part)
        if threading.get_ident() == self._thread:
            self.hear()
        else:
            self.loop.call_soon_threadsafe(self._hear_later)
            if self._failure is not None:
                raise self._failure
            if self._listener.ahead or len(self._queue) > _UNHEARD:
                self._wait(self._listener.keep_pace)

    def _hear_later(self) -> None:
        try:
            self.hear()
        except Exception:  # noqa: BLE001 — it is kept, and raised in the code of the graph
            return

    def _wait(self, wait: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Wait for the loop in a thread. On the loop, or while the loop waits for this thread, that cannot be done."""
        if threading.get_ident() != self._thread:
            self._watch.run(wait)

    # -- models --------------------------------------------------------------------------------------------------------

    def on_chat_model_start(
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
            and not speech.is_hidden(tags)
            and metadata.get("lc_source") not in _INTERNAL
            and "ls_structured_output_format" not in (kwargs.get("options") or {})
            and not self.inside_tool(parent_run_id)
        )
        if shown and metadata:
            path = path_of(metadata, self._steps)
            self._models[run_id] = Model(path)
            self._do(lambda: self.transcript.begin_model(path[-1]["task"]))

    def on_llm_new_token(
        self, token: Any, *, chunk: Any = None, run_id: UUID, parent_run_id: UUID | None = None, **kwargs: Any
    ) -> None:
        model = self._models.get(run_id)
        if model is not None and isinstance(chunk, ChatGenerationChunk) and isinstance(chunk.message, AIMessage):
            message = chunk.message
            self._do(lambda: self._say(model, message))

    def on_llm_end(
        self, response: LLMResult, *, run_id: UUID, parent_run_id: UUID | None = None, **kwargs: Any
    ) -> None:
        model = self._models.pop(run_id, None)
        generation = response.generations[0][0] if response.generations and response.generations[0] else None
        if not isinstance(generation, ChatGeneration):
            return
        message = generation.message
        if spent := speech.usage(message):
            self._do(lambda: self._listener.emit(spent))
        if model is not None and isinstance(message, AIMessage):
            speech.id_of(message)  # before the graph's code has it
            self._do(lambda: self._finish(model, message))

    def on_llm_error(self, error: BaseException, *, run_id: UUID, **kwargs: Any) -> None:
        model = self._models.pop(run_id, None)
        if model is not None:
            self._do(lambda: model.told and self.transcript.fail_model(model.told))

    def _say(self, model: Model, message: AIMessage) -> None:
        if model.told is None:  # later chunks may come with other ids
            model.told = self.transcript.begin_message(speech.id_of(message), model.path)
        self.transcript.say(model.told, message)

    def _finish(self, model: Model, message: AIMessage) -> None:
        if model.told is None:
            self.transcript.tell(message, model.path)
        else:
            self.transcript.finish_message(model.told, message)

    # -- tools ---------------------------------------------------------------------------------------------------------

    def on_tool_start(
        self,
        serialized: Mapping[str, Any],
        input_str: str,
        *,
        run_id: UUID,
        parent_run_id: UUID | None = None,
        metadata: Mapping[str, Any] | None = None,
        tool_call_id: str | None = None,
        inputs: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        outer = self.inside_tool(parent_run_id)
        self._parents[run_id] = parent_run_id
        placed = metadata is not None and "langgraph_checkpoint_ns" in metadata
        path = path_of(metadata, self._steps) if placed and metadata else ()
        name = str((serialized or {}).get("name") or kwargs.get("name") or "")
        tool = Tool(path, self._positions.of(path, name, input_str if inputs is None else inputs))
        self._tools[run_id] = tool
        if tool_call_id is not None and not outer:
            self._do(lambda: self._begin_call(tool, name, tool_call_id, inputs))

    def on_tool_end(self, output: Any, *, run_id: UUID, parent_run_id: UUID | None = None, **kwargs: Any) -> None:
        tool = self._leave_tool(run_id)
        if tool is None or self.inside_tool(parent_run_id):
            return
        for message in speech.messages_in(output):
            if isinstance(message, ToolMessage):
                speech.id_of(message)
                self._do(lambda message=message: self.transcript.answer(message, tool.path, tool.call))

    def on_tool_error(self, error: BaseException, *, run_id: UUID, **kwargs: Any) -> None:
        self._leave_tool(run_id)  # the node may make a message of it

    def _begin_call(self, tool: Tool, name: str, call_id: str, arguments: Any) -> None:
        tool.call = self.transcript.begin_call(name, call_id, arguments, tool.path)

    def _leave_tool(self, run_id: UUID) -> Tool | None:
        self._parents.pop(run_id, None)
        return self._tools.pop(run_id, None)

    # -- nodes ---------------------------------------------------------------------------------------------------------

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
        if not metadata or "langgraph_checkpoint_ns" not in metadata:
            return
        task = str(metadata["langgraph_checkpoint_ns"]).rpartition("|")[2].rpartition(":")[2]
        self._steps.setdefault(task, metadata["langgraph_step"])
        if kwargs.get("name") == metadata.get("langgraph_node"):
            self.nodes[run_id] = path_of(metadata, self._steps)
            self._positions.begin_task(task, metadata)
            given = list(speech.messages_in(inputs))
            self._do(lambda: self._begin_task(task, given))

    def on_chain_end(self, outputs: Any, *, run_id: UUID, parent_run_id: UUID | None = None, **kwargs: Any) -> None:
        self._parents.pop(run_id, None)
        path = self.nodes.pop(run_id, None)
        if path is None:
            return
        returned = [] if self.inside_tool(parent_run_id) else list(speech.messages_in(outputs))
        for message in returned:
            speech.id_of(message)
        self._do(lambda: self._end_task(path, returned, outputs))
        self._end_node(run_id)

    def on_chain_error(self, error: BaseException, *, run_id: UUID, **kwargs: Any) -> None:
        self._parents.pop(run_id, None)
        path = self.nodes.pop(run_id, None)
        if path is None:
            return
        if not isinstance(error, GraphBubbleUp):
            self._do(lambda: self.transcript.fail_task(path[-1]["task"]))
        if isinstance(error, Exception):  # else it is to end at once
            self._end_node(run_id)

    def _begin_task(self, task: str, given: Sequence[BaseMessage]) -> None:
        self.transcript.begin_task(task)
        self.transcript.see(given)

    def _end_task(self, path: Path, returned: Sequence[BaseMessage], outputs: Any) -> None:
        for message in returned:
            self.transcript.return_message(message, path)
        if len(path) > 1:
            return
        if answer := structured.answer_in(outputs, self.transcript.texts):
            self.transcript.tell_json(*answer, path)
        if values := speech.values_in(outputs):
            self._listener.emit(State(values), path)

    def _end_node(self, run_id: UUID) -> None:
        """No node ends before its words are stored: no checkpoint can then hold a step whose words are lost."""
        if threading.get_ident() == self._thread:
            self.pace.ending.add(run_id)
        else:
            self._wait(self._listener.flush)
