"""A graph as an agent: its threads, its checkpoints, and the runs that go on from them."""

from __future__ import annotations

import logging
from collections.abc import Collection, Sequence
from typing import Any
from uuid import UUID

import structlog
from langchain_core.messages import BaseMessage, convert_to_messages
from langgraph.checkpoint.base import CheckpointTuple
from langgraph.errors import GraphDrained
from langgraph.runtime import RunControl

from outlast.agent import AgentError, State, find_idempotency_key
from outlast.shared.connections import Database
from outlast.shared.domain.ids import parse_item_id
from outlast.shared.domain.runs import Lease, Run
from outlast.shared.output.items import Item, Path
from outlast.shared.store import runs, threads
from outlast.shared.wire import from_json
from outlast.worker import recording
from outlast.worker.stage import Drained, Stage

from . import speech, stateless
from .asked import Asked
from .callbacks import Callbacks
from .conversation import answering, to_messages, unknown_answers, unseen
from .saver import FencedSaver
from .spans import begun_spans
from .survival import Look, Reached, surviving

log = structlog.get_logger()

stateless.apply()

# LangChain warns of every error of a callback. That a run was lost is said once, by its attempt.
logging.getLogger("langchain_core.callbacks.manager").addFilter(lambda said: "LeaseLost" not in said.getMessage())

_RUN_ID = "outlast_run_id"
_TOLD = ("messages", "custom_outputs", "structured_response")
"""What of a state the client is told."""
# What is written of a task besides its results. The error of an earlier attempt stays beside what a later one returned.
_NO_RESULTS = {"__error__", "__error_source_node__", "__interrupt__", "__resume__"}


class LangGraphAgent:
    """Any graph with ``messages`` in its state. A later attempt goes on from the run's own last checkpoint."""

    def __init__(self, graph: Any) -> None:
        """Takes a compiled graph or a builder. A checkpointer it was compiled with is replaced by ours."""
        self._graph = graph.compile() if hasattr(graph, "compile") else graph

    async def surviving(self, run: Run, items: Sequence[Item], database: Database) -> Collection[str]:
        saver = FencedSaver(database, _lease(run))
        await saver.rewind(str(run.thread_id))
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
        self._callbacks = Callbacks(self, stage.surviving)
        self._transcript = self._callbacks.transcript
        self._messages: list[BaseMessage] = []
        """What the state held at the end of the last step."""
        self._asked = Asked(stage.request, self._callbacks.inside_tool)

    async def run(self) -> None:
        run = self._stage.run
        if run.attempt > 1:
            await self.saver.rewind(str(run.thread_id))
        latest = await self.saver.aget_tuple(_config(run))
        if latest is not None and _is_of(latest, run):
            self.saver.latest_id = latest.checkpoint["id"]
            await self._resume(latest)
            return
        base = await self._base(latest)
        config = _config(run, **({"checkpoint_id": base} if base else {}))
        new = await self._new_messages(config)
        self._transcript.know([*self._messages, *new])
        await self._stream({"messages": new, **self._inputs()}, config)

    async def _resume(self, latest: CheckpointTuple) -> None:
        """Go on from the run's own last checkpoint. What it has asked of the client is not asked by the model again."""
        snapshot = await self._graph.aget_state(_config(self._stage.run))
        self._messages = _messages_in(snapshot.values)
        self._transcript.know(self._older_messages())  # not settled: it has results of tasks whose step has not ended
        for path in self._stage.output.asking:
            self._called_client = True
            if path[0]["step"] <= latest.metadata.get("step", -1) or len(path) > 1:
                self._finish()
                return  # what stood beside it is done too
        await self._stream(None, _config(self._stage.run))

    async def _stream(self, given: Any, config: dict[str, Any]) -> None:
        spans = begun_spans()
        config["callbacks"] = [self._callbacks, self._callbacks.pace, *spans, *recording.callbacks()]
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
                stream_mode=["updates", "values"],
                output_keys=[key for key in _TOLD if key in self._graph.channels],
                durability=self._stage.durability.value,
                control=self._control,
            )
            try:
                async for kind, seen in steps:
                    if kind == "values":
                        self._messages = _messages_in(seen)
                        self._settle()
                        await self._stage.keep_pace()
                    else:
                        await self._see(seen)
            except GraphDrained:
                if not self._called_client:  # else the run is at its end: the client has to answer first
                    raise Drained from None
            finally:
                for opened in spans:
                    opened.close()
        self._finish()

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
        if "__interrupt__" in update:
            log.warning("agent.interrupted", reason="nothing can answer an interrupt() yet: the run completes")
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
        state = self._messages = _messages_in(snapshot.values)
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

    def emit(self, emission: object, path: Path = ()) -> None:
        self._stage.tell(emission, path)

    def withdraw(self, key: str) -> None:
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

    def called(self, by_client: bool) -> None:
        self._asked.called()
        if by_client:
            self._called_client = True
            self._control.request_drain("client_call")  # the step is kept; the next one would look for the tool here

    def _idempotency_key(self) -> str | None:
        position = self._callbacks.current_position()
        return None if position is None else self._stage.context.idempotency_key(position)


def _messages_in(values: Any) -> list[BaseMessage]:
    """Those of a state, which a graph may keep as dicts."""
    return convert_to_messages(values.get("messages") or [])


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
