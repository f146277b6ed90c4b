"""A graph as an agent: its threads, its checkpoints, and the runs that go on from them."""

from __future__ import annotations

import logging
from collections.abc import Collection, Sequence
from typing import Any
from uuid import UUID

from langchain_core.messages import BaseMessage, convert_to_messages
from langgraph.checkpoint.base import CheckpointTuple
from langgraph.errors import GraphDrained
from langgraph.runtime import RunControl

from outlast.agent import AgentError, State, find_idempotency_key
from outlast.shared import tracing
from outlast.shared.connections import Database
from outlast.shared.domain.ids import parse_item_id
from outlast.shared.domain.runs import Lease, Run
from outlast.shared.output.items import Item, Path
from outlast.shared.store import runs, threads
from outlast.shared.wire import from_json
from outlast.worker import recording
from outlast.worker.stage import Drained, Stage

from . import interrupts, speech
from .asked import Asked
from .callbacks import Callbacks
from .conversation import answering, to_messages, unknown_answers, unseen
from .saver import FencedSaver
from .spans import Spans
from .survival import Look, Reached, surviving

# LangChain warns of every error of a callback. That a run was lost is said once, by its attempt.
logging.getLogger("langchain_core.callbacks.manager").addFilter(lambda said: "LeaseLost" not in said.getMessage())

_RUN_ID = "outlast_run_id"
# What is written of a task besides its results. The error of an earlier attempt stays beside what a later one returned.
_NO_RESULTS = {"__error__", "__error_source_node__", "__interrupt__", "__resume__"}


class LangGraphAgent:
    """Any graph with ``messages`` in its state. A later attempt goes on from the run's own last checkpoint."""

    def __init__(self, graph: Any) -> None:
        """Takes a compiled graph or a builder. A checkpointer it was compiled with is replaced by ours."""
        self._graph = graph.compile() if hasattr(graph, "compile") else graph

    async def surviving(self, run: Run, items: Sequence[Item], database: Database) -> Collection[str]:
        saver = FencedSaver(database, _lease(run))
        latest = await saver.aget_tuple(_config(run))
        return await surviving(items, _looking(saver, run, latest)) if _is_of(latest, run) else ()

    async def execute(self, stage: Stage) -> None:
        performance = Performance(self._graph, stage)
        try:
            await performance.run()
        finally:
            stage.checkpoint_id = performance.saver.latest_id


class Performance:
    """One attempt at one run of a graph."""

    def __init__(self, graph: Any, stage: Stage) -> None:
        self._stage = stage
        self.saver = FencedSaver(stage.database, _lease(stage.run), stage.lost, stage.context.user_token)
        self._graph = graph.copy(update={"checkpointer": self.saver})
        self._control = RunControl()
        self._called_client = False
        self._interrupted = False
        said = [item.origin.key for item in stage.surviving if item.origin.key]
        self._callbacks = Callbacks(self, said)
        self._asked = Asked(stage.request, self._callbacks.inside_tool)

    async def run(self) -> None:
        run = self._stage.run
        latest = await self.saver.aget_tuple(_config(run))
        if latest is not None and _is_of(latest, run):
            self.saver.latest_id = latest.checkpoint["id"]
            await self._resume(latest)
            return
        base = await self._base(latest)
        config = _config(run, **({"checkpoint_id": base} if base else {}))
        await self._stream({"messages": await self._new_messages(config), **self._inputs()}, config)

    async def _resume(self, latest: CheckpointTuple) -> None:
        """Go on from the run's own last checkpoint. What it has asked of the client is not asked by the model again."""
        for path in self._stage.output.asking:
            self._called_client = True
            if path[0]["step"] <= latest.metadata.get("step", -1) or len(path) > 1:
                return  # what stood beside it is done too
        if waiting := await interrupts.at_gate(self._graph, _config(self._stage.run)):
            raise waiting
        await self._stream(None, _config(self._stage.run))

    async def _stream(self, given: Any, config: dict[str, Any]) -> None:
        spans = _spans()
        config["callbacks"] = [self._callbacks, *spans, *recording.callbacks()]
        config["metadata"] = {_RUN_ID: str(self._stage.run.run_id)}
        config["configurable"] |= {
            "user_id": self._stage.context.principal,
            "outlast_request": self._stage.request,
            "outlast_context": self._stage.context,
        }
        find_idempotency_key.set(self._idempotency_key)
        self._stage.when_draining(lambda: self._control.request_drain("worker_drained"))
        with self._asked.applied():
            steps = self._graph.astream(
                given,
                config,
                stream_mode="updates",
                durability=self._stage.durability.value,
                control=self._control,
            )
            try:
                async for update in steps:
                    await self._see(update)
            except GraphDrained:
                if not self._called_client:  # else the run is at its end: the client has to answer first
                    raise Drained from None
            finally:
                for opened in spans:
                    opened.close()
        if self._interrupted:
            raise await interrupts.interrupted(self._graph, _config(self._stage.run))

    async def _see(self, update: dict[str, Any]) -> None:
        if self._called_client:  # by an earlier attempt: this step is to be the last
            self._control.request_drain("client_call")
        self._interrupted |= "__interrupt__" in update
        if "__metadata__" in update:  # from a cache: nothing is called that could tell
            await self._stage.emit(State(speech.values_in(list(update.values()))))

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
        state = convert_to_messages(snapshot.values.get("messages") or [])  # a graph may keep them as dicts
        given = to_messages(self._stage.request.input, run.run_id.hex)
        new = unseen(given, state, await self._made_in_this_thread() if state else ())
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
        if (said := self._asked.as_answer(emission)) is not None:
            await self._stage.emit(said, path)

    async def retract(self, key: str) -> None:
        await self._stage.retract(key)

    async def flush(self) -> None:
        await self._stage.flush_all()

    def is_open(self, call_id: str) -> bool:
        return self._stage.output.is_open(call_id)

    def is_clients(self, tool: str) -> bool:
        return self._asked.is_clients(tool)

    def is_artificial(self, tool: str) -> bool:
        return self._asked.is_artificial(tool)

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
