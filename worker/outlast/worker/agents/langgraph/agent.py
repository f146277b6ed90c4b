"""A graph as an agent: its threads, its checkpoints, and the runs that go on from them."""

from __future__ import annotations

import logging
from collections.abc import Collection, Sequence
from typing import Any, cast
from uuid import UUID

import structlog
from langchain_core.messages import BaseMessage
from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import CheckpointTuple
from langgraph.errors import GraphDrained, GraphRecursionError
from langgraph.runtime import RunControl

from outlast.agent import AgentError, State, find_idempotency_key
from outlast.shared import tracing
from outlast.shared.connections import Database
from outlast.shared.domain.ids import parse_item_id
from outlast.shared.domain.runs import Lease, Run
from outlast.shared.output.items import Item, Path
from outlast.shared.settings import GraphOptions
from outlast.shared.store import runs, threads
from outlast.shared.wire import from_json
from outlast.worker import recording
from outlast.worker.stage import Drained, Stage, items_of

from . import speech
from .asked import Asked
from .callbacks import Callbacks
from .conversation import to_messages
from .history import answering, has_unknown_turns, questions, unknown_answers, unseen
from .recursion import limit_exceeded
from .result import Said, answer
from .saver import FencedSaver
from .serving import Serving
from .spans import Spans
from .survival import Look, Reached, surviving

log = structlog.get_logger()

# LangChain warns of every error of a callback. That a run was lost is said once, by its attempt.
logging.getLogger("langchain_core.callbacks.manager").addFilter(lambda said: "LeaseLost" not in said.getMessage())

_RUN_ID = "outlast_run_id"
# What is written of a task besides its results. The error of an earlier attempt stays beside what a later one returned.
_NO_RESULTS = {"__error__", "__error_source_node__", "__interrupt__", "__resume__"}


class LangGraphAgent:
    """Any graph. A later attempt goes on from the run's own last checkpoint."""

    def __init__(self, graph: Any, options: GraphOptions | None = None) -> None:
        """Takes a compiled graph or a builder. A checkpointer it was compiled with is replaced by ours."""
        self._serving = Serving.of(graph, options or GraphOptions())

    def __str__(self) -> str:
        return str(self._serving)

    async def surviving(self, run: Run, items: Sequence[Item], database: Database) -> Collection[str]:
        saver = FencedSaver(database, _lease(run))
        latest = await saver.aget_tuple(_config(run))
        return await surviving(items, _looking(saver, run, latest)) if _is_of(latest, run) else ()

    async def execute(self, stage: Stage) -> None:
        performance = Performance(self._serving, stage)
        try:
            await performance.run()
        finally:
            stage.checkpoint_id = performance.saver.latest_id


class Performance:
    """One attempt at one run of a graph."""

    def __init__(self, serving: Serving, stage: Stage) -> None:
        self._serving = serving
        self._stage = stage
        self.saver = FencedSaver(stage.database, _lease(stage.run), stage.lost, stage.context.user_token)
        self._graph = serving.graph.copy(update={"checkpointer": self.saver})
        self._control = RunControl()
        self._called_client = False
        self._said = Said(stage.surviving)
        said = [item.origin.key for item in stage.surviving if item.origin.key]
        self._callbacks = Callbacks(self, said)
        self._asked = Asked(stage.request, self._callbacks.inside_tool)

    async def run(self) -> None:
        run = self._stage.run
        latest = await self.saver.aget_tuple(_config(run))
        if latest is not None and _is_of(latest, run):
            self.saver.latest_id = latest.checkpoint["id"]
            await self._resume(latest)
        else:
            base = await self._base(latest)
            config = _config(run, **({"checkpoint_id": base} if base else {}))
            await self._stream(self._serving.shape.asked(await self._new_messages(config), self._inputs()), config)
        await self._conclude(latest)

    async def _resume(self, latest: CheckpointTuple) -> None:
        """Go on from the run's own last checkpoint. What it has asked of the client is not asked by the model again."""
        for path in self._stage.output.asking:
            self._called_client = True
            if path[0]["step"] <= latest.metadata.get("step", -1) or len(path) > 1:
                return  # what stood beside it is done too
        await self._stream(None, _config(self._stage.run))

    async def _stream(self, given: Any, config: dict[str, Any]) -> None:
        spans = _spans()
        given_context = self._serving.context.given(self._stage.request, self._stage.context)
        config["callbacks"] = [self._callbacks, *spans, *recording.callbacks()]
        config["metadata"] = {_RUN_ID: str(self._stage.run.run_id)}
        config["configurable"] |= {
            **given_context.configurable,
            "store": self._graph.store,
            "user_id": self._stage.context.principal,
            "outlast_request": self._stage.request,
            "outlast_context": self._stage.context,
        }
        if self._serving.recursion_limit is not None:
            config["recursion_limit"] = self._serving.recursion_limit
        find_idempotency_key.set(self._idempotency_key)
        self._stage.when_draining(lambda: self._control.request_drain("worker_drained"))
        with self._asked.applied():
            steps = self._graph.astream(
                given,
                config,
                context=given_context.context,
                stream_mode="updates",
                durability=self._stage.durability.value,
                control=self._control,
            )
            try:
                async for update in steps:
                    await self._see(update)
            except GraphRecursionError as error:
                raise limit_exceeded(error) from error
            except GraphDrained:
                if not self._called_client:  # else the run is at its end: the client has to answer first
                    raise Drained from None
            finally:
                for opened in spans:
                    opened.close()

    async def _see(self, update: dict[str, Any]) -> None:
        if self._called_client:  # by an earlier attempt: this step is to be the last
            self._control.request_drain("client_call")
        if "__interrupt__" in update:
            log.warning("agent.interrupted", reason="nothing can answer an interrupt() yet: the run completes")
        if "__metadata__" in update:  # from a cache: nothing is called that could tell
            await self._stage.emit(State(speech.values_in(list(update.values()))))

    async def _conclude(self, earlier: CheckpointTuple | None) -> None:
        """Say the answer, where it is not what the graph's messages have said."""
        shape, config = self._serving.shape, _config(self._stage.run)
        if shape.is_said or self._called_client:
            return
        key = f"{self._stage.run.run_id.hex}-answer"
        for piece in answer(shape, await self._graph.aget_state(config), earlier, self._said, key):
            await self._stage.emit(piece)

    # -- where it goes on, and with what -------------------------------------------------------------------------------

    async def _base(self, latest: CheckpointTuple | None) -> str | None:
        """The checkpoint to go on from that of the response that was named, when it is not the latest one."""
        previous = self._stage.run.previous_run_id
        if previous is None:
            return None
        found = await self._stage.database.run(lambda c: runs.checkpoint_of(c, previous))
        if found is None or found.thread != self._stage.run.thread or found.checkpoint_id is None:
            return None
        return found.checkpoint_id if latest and found.checkpoint_id != latest.checkpoint["id"] else None

    async def _new_messages(self, config: dict[str, Any]) -> list[BaseMessage]:
        run = self._stage.run
        snapshot: Any = await self._graph.aget_state(config)
        found = await self.saver.aget_tuple(cast("RunnableConfig", config))
        state = self._serving.shape.remembered(snapshot.values, found)
        given = to_messages(self._stage.request.input, run.run_id.hex)
        asked_before = await self._asked_before() if snapshot.metadata and has_unknown_turns(given, state) else ()
        new = unseen(given, state, await self._made_in_this_thread() if state else (), asked_before)
        if unknown_answers(new, state):  # a graph within the graph has called, and its state ended with the run
            new = [*await self._called_by(_run_id(snapshot.metadata)), *new]
        if unknown := unknown_answers(new, state):
            raise AgentError(f"No tool call found for function call output with call_id {unknown[0]}.")
        return answering(new or given[-1:], state)

    async def _called_by(self, run_id: str | None) -> list[BaseMessage]:
        """The calls for the client that this earlier run of the thread ended with."""
        principal = self._stage.run.principal
        earlier = run_id and await self._stage.database.run(lambda c: runs.read(c, UUID(run_id), principal))
        if not earlier or not earlier.response:
            return []
        output: list[dict[str, Any]] = from_json(earlier.response)["output"]
        return to_messages([item for item in output if item["type"] == "function_call"], earlier.run_id.hex)

    async def _asked_before(self) -> list[str]:
        """The questions of the request before this one, where the state may have forgotten them."""
        run = self._stage.run
        text = await self._stage.database.run(lambda c: threads.earlier_request(c, run.run_id, run.previous_run_id))
        return questions(to_messages(items_of(from_json(text)), "")) if text else []

    async def _made_in_this_thread(self) -> set[str]:
        """Ids of those of the request's items that runs of its thread have made."""
        run = self._stage.run
        ids = [str(item["id"]) for item in self._stage.request.input if item.get("id")]
        makers = {item_id: made[0] for item_id in ids if (made := parse_item_id(item_id))}
        if not makers:
            return set()
        ours = await self._stage.database.run(
            lambda c: threads.runs_of_thread(c, run.thread, run.principal, set(makers.values()))
        )
        return {item_id for item_id, run_id in makers.items() if run_id in ours}

    def _inputs(self) -> dict[str, Any]:
        """What else a graph may have in its state, as Databricks' templates do."""
        if "custom_inputs" not in self._graph.channels:
            return {}
        return {"custom_inputs": dict(self._stage.request.custom_inputs)}

    # -- what the callbacks tell goes here ----------------------------------------------------------------------------

    async def emit(self, emission: object, path: Path = ()) -> None:
        self._said.hear(emission)
        await self._stage.emit(emission, path)

    async def retract(self, key: str) -> None:
        self._said.forget(key)
        await self._stage.retract(key)

    async def flush(self) -> None:
        await self._stage.flush_all()

    def is_open(self, call_id: str) -> bool:
        return self._stage.output.is_open(call_id)

    def is_clients(self, tool: str) -> bool:
        return self._asked.is_clients(tool)

    def called(self, by_client: bool) -> None:
        self._asked.called()
        if by_client:
            self._called_client = True
            self._control.request_drain("client_call")  # the step is kept; the next one would look for the tool here

    def _idempotency_key(self) -> str | None:
        call_id = self._callbacks.current_call()
        return self._stage.context.idempotency_key(call_id) if call_id is not None else None


def _spans() -> list[Spans]:
    """One who traces what the graph does, if this attempt is traced."""
    tracer, attempt = tracing.tracer(), tracing.current_attempt()
    return [] if tracer is None or attempt is None else [Spans(tracer, attempt)]


def _looking(saver: FencedSaver, run: Run, latest: CheckpointTuple | None) -> Look:
    """How far each graph of the run had come; asked once of each."""
    looked: dict[str, Reached | None] = {"": _reached(latest)}

    async def look(namespace: str) -> Reached | None:
        if namespace not in looked:
            looked[namespace] = _reached(await saver.aget_tuple(_config(run, checkpoint_ns=namespace)))
        return looked[namespace]

    return look


def _lease(run: Run) -> Lease:
    return Lease(run.run_id, run.attempt)


def _config(run: Run, **configurable: str) -> Any:
    """Threads are ours by their id: two principals may choose the same name."""
    return {"configurable": {"thread_id": str(run.thread_id), "checkpoint_ns": "", **configurable}}


def _is_of(checkpoint: CheckpointTuple | None, run: Run) -> bool:
    return checkpoint is not None and _run_id(checkpoint.metadata) == str(run.run_id)


def _run_id(metadata: Any) -> str | None:
    """The run that wrote a checkpoint."""
    return metadata.get(_RUN_ID) if metadata else None


def _reached(checkpoint: CheckpointTuple | None) -> Reached | None:
    if checkpoint is None:
        return None
    writes = checkpoint.pending_writes or []
    finished = frozenset(task for task, channel, _ in writes if channel not in _NO_RESULTS)
    return Reached(checkpoint.metadata.get("step", -1), finished)
