"""Agents that are plain functions: `outlast.agent.Agent`, or a coroutine that returns its whole answer."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterable, Sequence
from contextlib import aclosing
from typing import Any, cast

from outlast.agent import Agent, Context, Emission, Request
from outlast.shared.connections import Database
from outlast.shared.domain.runs import Run
from outlast.worker.output.items import Item
from outlast.worker.stage import Stage

CoroutineAgent = Callable[[Request, Context], Awaitable[Any]]


class FunctionAgent:
    """A later attempt starts again from the input: nothing of what earlier ones said survives."""

    def __init__(self, agent: Agent) -> None:
        self._agent = agent

    async def surviving(self, run: Run, items: Sequence[Item], database: Database) -> Collection[str]:
        return ()

    async def execute(self, stage: Stage) -> None:
        async with aclosing(cast("Any", self._agent(stage.request, stage.context))) as emissions:
            async for emission in emissions:
                await stage.emit(emission)


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
