"""Where a run begins in its thread: the checkpoint that it goes on from, and the messages that are new there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from langchain_core.messages import BaseMessage
from langgraph.checkpoint.base import CheckpointTuple

from outlast.agent import AgentError
from outlast.shared.domain.ids import parse_item_id
from outlast.shared.domain.runs import Run
from outlast.shared.store import runs, threads
from outlast.shared.wire import from_json
from outlast.worker.stage import Stage, items_of

from .conversation import to_messages
from .history import answering, has_unknown_turns, questions, unknown_answers, unseen
from .saver import FencedSaver
from .shape import Shape

RUN_ID = "outlast_run_id"


def thread_config(run: Run, **configurable: str) -> Any:
    """Threads are ours by their id: two principals may choose the same name."""
    return {"configurable": {"thread_id": str(run.thread_id), "checkpoint_ns": "", **configurable}}


def run_id_of(metadata: Any) -> str | None:
    """The run that wrote a checkpoint."""
    return metadata.get(RUN_ID) if metadata else None


@dataclass(frozen=True, slots=True)
class Place:
    """Where one run begins."""

    config: Any
    messages: list[BaseMessage]
    """Those of the thread so far."""
    new: list[BaseMessage]

    @classmethod
    async def find(
        cls, stage: Stage, graph: Any, shape: Shape, saver: FencedSaver, latest: CheckpointTuple | None
    ) -> Place:
        """Read the thread. Raises AgentError when the request answers a call that was never made."""
        base = await _base(stage, latest)
        config = thread_config(stage.run, **({"checkpoint_id": base} if base else {}))
        snapshot = await graph.aget_state(config)
        found = await saver.aget_tuple(config) if base else latest
        state = shape.remembered(snapshot.values, found)
        new = await _new_messages(stage, snapshot.metadata, state)
        if not new and not state and not stage.request.input:
            raise AgentError("'input' is empty, and so is the conversation: there is nothing to go on with.")
        return cls(config, state, new)


async def _base(stage: Stage, latest: CheckpointTuple | None) -> str | None:
    """The checkpoint to go on from that of the response that was named, when it is not the latest one."""
    previous = stage.run.previous_run_id
    if previous is None:
        return None
    found = await stage.database.run(lambda c: runs.checkpoint_of(c, previous))
    if found is None or found.thread != stage.run.thread or found.checkpoint_id is None:
        return None
    return found.checkpoint_id if latest and found.checkpoint_id != latest.checkpoint["id"] else None


async def _new_messages(stage: Stage, metadata: Any, state: Sequence[BaseMessage]) -> list[BaseMessage]:
    given = to_messages(stage.request.input, stage.run.run_id.hex)
    asked_before = await _asked_before(stage) if metadata and has_unknown_turns(given, state) else ()
    new = unseen(given, state, await _made_in_this_thread(stage) if state else (), asked_before)
    if unknown_answers(new, state):  # a graph within the graph has called, and its state ended with the run
        new = [*await _called_by(stage, run_id_of(metadata)), *new]
    if unknown := unknown_answers(new, state):
        raise AgentError(f"No tool call found for function call output with call_id {unknown[0]}.")
    return answering(new or given[-1:], state)


async def _asked_before(stage: Stage) -> list[str]:
    """The questions of the request before this one, where the state may have forgotten them."""
    run = stage.run
    text = await stage.database.run(lambda c: threads.earlier_request(c, run.run_id, run.previous_run_id))
    return questions(to_messages(items_of(from_json(text)), "")) if text else []


async def _called_by(stage: Stage, run_id: str | None) -> list[BaseMessage]:
    """The calls for the client that this earlier run of the thread ended with."""
    principal = stage.run.principal
    earlier = run_id and await stage.database.run(lambda c: runs.read(c, UUID(run_id), principal))
    if not earlier or not earlier.response:
        return []
    output: list[dict[str, Any]] = from_json(earlier.response)["output"]
    return to_messages([item for item in output if item["type"] == "function_call"], earlier.run_id.hex)


async def _made_in_this_thread(stage: Stage) -> set[str]:
    """Ids of those of the request's items that runs of its thread have made."""
    run = stage.run
    ids = [str(item["id"]) for item in stage.request.input if item.get("id")]
    makers = {item_id: made[0] for item_id in ids if (made := parse_item_id(item_id))}
    if not makers:
        return set()
    ours = await stage.database.run(
        lambda c: threads.runs_of_thread(c, run.thread, run.principal, set(makers.values()))
    )
    return {item_id for item_id, run_id in makers.items() if run_id in ours}
