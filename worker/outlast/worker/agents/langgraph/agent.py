"""A graph as an agent: its threads, its checkpoints, and the runs that go on from them."""

from __future__ import annotations

import logging
from collections.abc import Collection, Sequence
from typing import Any

import structlog
from langchain_core.messages import BaseMessage
from langgraph.checkpoint.base import CheckpointTuple
from langgraph.errors import GraphDrained, GraphRecursionError
from langgraph.runtime import RunControl

from outlast.agent import AgentError, Close, State, Text, find_idempotency_key
from outlast.shared.connections import Database
from outlast.shared.domain.graph_requests import problem_with
from outlast.shared.domain.runs import AgentKind, Lease, Run
from outlast.shared.output.items import Item, Path
from outlast.shared.settings import GraphOptions
from outlast.worker import recording
from outlast.worker.stage import Drained, Stage

from . import interrupts, speech, stateless
from .asked import Asked
from .callbacks import Callbacks
from .conversation import to_messages
from .place import RUN_ID, Place, run_id_of, thread_config
from .recursion import limit_exceeded
from .result import answer_in
from .saver import FencedSaver
from .serving import Serving
from .spans import begun_spans
from .survival import Look, Reached, surviving

log = structlog.get_logger()

stateless.apply()

# LangChain warns of every error of a callback. That a run was lost is said once, by its attempt.
logging.getLogger("langchain_core.callbacks.manager").addFilter(lambda said: "LeaseLost" not in said.getMessage())

_CALLS = {"mcp_call", "function_call"}
# What is written of a task besides its results. The error of an earlier attempt stays beside what a later one returned.
_NO_RESULTS = {"__error__", "__error_source_node__", "__interrupt__", "__resume__"}


class LangGraphAgent:
    """Any graph. A later attempt goes on from the run's own last checkpoint."""

    kind = AgentKind.GRAPH

    def __init__(self, graph: Any, options: GraphOptions | None = None) -> None:
        """Takes a compiled graph or a builder. A checkpointer it was compiled with is replaced by ours."""
        self._serving = Serving.of(graph, options or GraphOptions())

    def __str__(self) -> str:
        return str(self._serving)

    async def surviving(self, run: Run, items: Sequence[Item], database: Database) -> Collection[str]:
        saver = FencedSaver(database, _lease(run))
        await saver.rewind(str(run.thread_id))
        latest = await saver.aget_tuple(thread_config(run))
        return await surviving(items, _looking(saver, run, latest)) if _is_of(latest, run) else ()

    async def execute(self, stage: Stage) -> None:
        if (problem := problem_with(stage.request.body, self._serving.taken)) is not None:
            raise AgentError(problem.message, code=str(problem.code))
        performance = Performance(self._serving, stage)
        try:
            await performance.run()
        finally:
            stage.checkpoint_id = performance.saver.latest_id


class Performance:
    """One attempt at one run of a graph."""

    def __init__(self, serving: Serving, stage: Stage) -> None:
        self._shape = serving.shape
        self._context = serving.context
        self._recursion_limit = serving.recursion_limit
        self._stage = stage
        self.saver = FencedSaver(stage.database, _lease(stage.run), stage.lost, stage.context.user_token)
        self._graph = serving.graph.copy(update={"checkpointer": self.saver})
        self._control = RunControl()
        self._called_client = False
        self._interrupted = False
        self._callbacks = Callbacks(self, stage.surviving, was_corrected=stage.was_corrected)
        self._transcript = self._callbacks.transcript
        self._messages: list[BaseMessage] = []
        """What the state held at the end of the last step."""
        made = sum(item.type in _CALLS for item in stage.surviving)
        self._asked = Asked(stage.request, self._callbacks.inside_tool, strict=serving.taken.strict, calls_made=made)

    async def run(self) -> None:
        run = self._stage.run
        latest = await self.saver.aget_tuple(thread_config(run))
        if latest is not None and _is_of(latest, run):
            self.saver.latest_id = latest.checkpoint["id"]
            await self._resume(latest)
        else:
            place = await Place.find(self._stage, self._graph, self._shape, self.saver, latest)
            self._messages = place.messages
            self._transcript.know([*place.messages, *place.new])
            await self._stream(self._shape.asked(place.new, self._inputs()), place.config)
        await self._conclude()

    async def _resume(self, latest: CheckpointTuple) -> None:
        """Go on from the run's own last checkpoint. What it has asked of the client is not asked by the model again."""
        snapshot = await self._graph.aget_state(thread_config(self._stage.run))
        has_returned = self._shape.kind == "entrypoint" and not snapshot.next  # what is kept is this run's answer
        self._messages = [] if has_returned else self._shape.remembered(snapshot.values, latest)
        self._transcript.know(self._older_messages())  # not settled: it has results of tasks whose step has not ended
        for path in self._stage.output.asking:
            self._called_client = True
            if path[0]["step"] <= latest.metadata.get("step", -1) or len(path) > 1:
                self._finish()
                return  # what stood beside it is done too
        if waiting := await interrupts.at_gate(self._graph, thread_config(self._stage.run)):
            raise waiting
        await self._stream(None, thread_config(self._stage.run))

    async def _stream(self, given: Any, config: dict[str, Any]) -> None:
        spans = begun_spans()
        given_context = self._context.given(self._stage.request, self._stage.context)
        config["callbacks"] = [self._callbacks, self._callbacks.pace, *spans, *recording.callbacks()]
        config["metadata"] = {RUN_ID: str(self._stage.run.run_id)}
        config["configurable"] |= {
            **given_context.configurable,
            "store": self._graph.store,
            "user_id": self._stage.context.principal,
            "outlast_request": self._stage.request,
            "outlast_context": self._stage.context,
        }
        if self._recursion_limit is not None:
            config["recursion_limit"] = self._recursion_limit
        find_idempotency_key.set(self._idempotency_key)
        self._stage.when_draining(lambda: self._control.request_drain("worker_drained"))
        with self._asked.applied():
            steps = self._graph.astream(
                given,
                config,
                context=given_context.context,
                stream_mode=["updates", "values"],
                output_keys=self._shape.told_channels(self._graph.channels),
                durability=self._stage.durability.value,
                control=self._control,
            )
            try:
                async for kind, seen in steps:
                    if kind == "values":
                        self._messages = self._shape.remembered(seen, None)
                        self._settle()
                        await self._stage.keep_pace()
                    else:
                        await self._see(seen)
            except GraphRecursionError as error:
                raise limit_exceeded(error) from error
            except GraphDrained:
                if not self._called_client:  # else the run is at its end: the client has to answer first
                    raise Drained from None
            finally:
                for opened in spans:
                    opened.close()
        self._finish()
        if self._interrupted:
            raise await interrupts.interrupted(self._graph, thread_config(self._stage.run))

    def _settle(self) -> None:
        """Correct what was told: the state that a step has left is the answer so far."""
        self._callbacks.hear()
        self._transcript.settle(self._messages)

    def _finish(self) -> None:
        self._callbacks.hear()
        self._stage.output.arrange(self._transcript.finish(self._messages))

    def _older_messages(self) -> Sequence[BaseMessage]:
        """Those of the state that are older than this run, up to its input; all of them if that is not there."""
        given = {message.id for message in to_messages(self._stage.request.input, self._stage.run.run_id.hex)}
        places = [place for place, message in enumerate(self._messages) if message.id in given]
        return self._messages[: places[-1] + 1] if places else self._messages

    async def _see(self, update: dict[str, Any]) -> None:
        if self._called_client:  # by an earlier attempt: this step is to be the last
            self._control.request_drain("client_call")
        self._interrupted |= "__interrupt__" in update
        if "__metadata__" in update:  # from a cache: nothing is called that could tell
            await self._stage.emit(State(speech.values_in(list(update.values()))))

    async def _conclude(self) -> None:
        """Say the answer, where it is not what the graph's messages have said."""
        if self._shape.is_said or self._called_client:
            return
        snapshot = await self._graph.aget_state(thread_config(self._stage.run))
        if snapshot.next:  # it waits for a decision: what is there is of an earlier run
            return
        answer = answer_in(self._shape.answer(snapshot.values))
        if isinstance(answer, list):
            self._transcript.add(answer)
        elif answer and not self._transcript.holds(answer):
            key = f"{self._stage.run.run_id.hex}-answer"
            await self._stage.emit(Text(answer, key))
            await self._stage.emit(Close(key))

    def _inputs(self) -> dict[str, Any]:
        """What else a graph may have in its state, as Databricks' templates do."""
        if "custom_inputs" not in self._graph.channels:
            return {}
        return {"custom_inputs": dict(self._stage.request.custom_inputs)}

    # -- what the callbacks tell goes here ----------------------------------------------------------------------------

    def emit(self, emission: object, path: Path = ()) -> None:
        if (said := self._asked.as_answer(emission)) is not None:
            self._stage.tell(said, path)

    def withdraw(self, key: str) -> None:
        self._asked.withdrawn(key)
        self._stage.withdraw(key)

    @property
    def ahead(self) -> bool:
        return self._stage.ahead

    async def keep_pace(self) -> None:
        await self._stage.keep_pace()

    async def flush(self) -> None:
        await self._stage.flush_all()

    def is_open(self, key: str) -> bool:
        return self._stage.output.is_open(key)

    def is_held(self, call_id: str) -> bool:
        return self._stage.output.is_held(call_id)

    def is_clients(self, tool: str) -> bool:
        return self._asked.is_clients(tool)

    def is_artificial(self, tool: str) -> bool:
        return self._asked.is_artificial(tool)

    def called(self, by_client: bool) -> None:
        self._asked.called(by_client)
        if by_client:
            self._called_client = True
            self._control.request_drain("client_call")  # the step is kept; the next one would look for the tool here

    def _idempotency_key(self) -> str | None:
        position = self._callbacks.current_position()
        return None if position is None else self._stage.context.idempotency_key(position)


def _looking(saver: FencedSaver, run: Run, latest: CheckpointTuple | None) -> Look:
    """How far each graph of the run had come; asked once of each."""
    looked: dict[str, Reached | None] = {"": _reached(latest)}

    async def look(namespace: str) -> Reached | None:
        if namespace not in looked:
            looked[namespace] = _reached(await saver.aget_tuple(thread_config(run, checkpoint_ns=namespace)))
        return looked[namespace]

    return look


def _lease(run: Run) -> Lease:
    return Lease(run.run_id, run.attempt)


def _is_of(checkpoint: CheckpointTuple | None, run: Run) -> bool:
    return checkpoint is not None and run_id_of(checkpoint.metadata) == str(run.run_id)


def _reached(checkpoint: CheckpointTuple | None) -> Reached | None:
    if checkpoint is None:
        return None
    writes = checkpoint.pending_writes or []
    finished = frozenset(task for task, channel, _ in writes if channel not in _NO_RESULTS)
    return Reached(checkpoint.metadata.get("step", -1), finished)
