"""Agents that are plain functions: `outlast.agent.Agent`, or a coroutine that returns its whole answer."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import replace
from functools import partial
from typing import Any, cast

from outlast.agent import Agent, Context, Emission, Request
from outlast.shared.connections import Database
from outlast.shared.domain.runs import AgentKind, Run
from outlast.shared.output.emissions import EmissionError, snapshot
from outlast.shared.output.items import Item
from outlast.shared.store import saves
from outlast.shared.wire import to_json
from outlast.worker.stage import Stage

CoroutineAgent = Callable[[Request, Context], Awaitable[Any]]


_SAVED_BYTES = 256 * 1024


class FunctionAgent:
    """A later attempt starts again from the input. What was said before the last ``context.save()`` survives."""

    kind = AgentKind.FUNCTION

    def __init__(self, agent: Agent) -> None:
        self._agent = agent

    def __str__(self) -> str:
        return "function"

    async def surviving(self, run: Run, items: Sequence[Item], database: Database) -> Collection[str]:
        saved = await database.run(lambda c: saves.read(c, run.run_id))
        if saved is None:
            return ()
        return [item.id for item in items if item.done_seq is not None and item.done_seq <= saved.kept_seq]

    async def execute(self, stage: Stage) -> None:
        context = replace(stage.context, save_values=partial(_save, stage))
        async with aclosing(cast("Any", self._agent(stage.request, context))) as emissions:
            async for emission in emissions:
                await stage.emit(emission)


async def _save(stage: Stage, values: Mapping[str, Any]) -> None:
    saved = stage.saved | snapshot(values)
    size = len(to_json(saved).encode())
    if size > _SAVED_BYTES:
        raise EmissionError(f"A run can save {_SAVED_BYTES} bytes of JSON altogether; these are {size}.")
    await stage.keep(await stage.pause(), saved)
    stage.saved.update(saved)


def from_coroutine(answer: CoroutineAgent) -> Agent:
    """An agent from a function that returns a string, an emission, a list of them, or None for no answer."""

    async def agent(request: Request, context: Context, /) -> AsyncIterator[Emission | str]:
        returned = await answer(request, context)
        if returned is None:
            return
        several = isinstance(returned, Iterable) and not isinstance(returned, str)
        emissions = cast("Iterable[Emission | str]", returned if several else (returned,))
        for emission in emissions:
            yield emission

    return agent
