"""Plain async functions. One that yields is an agent already; one that returns its whole answer becomes one here."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from typing import Any, cast

from outlast.agent import Agent, Context, Emission, Request

CoroutineAgent = Callable[[Request, Context], Awaitable[Any]]


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
