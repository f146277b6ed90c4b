"""Finding the agents that OUTLAST_AGENTS names."""

from __future__ import annotations

import importlib
import inspect
import os
import sys
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from typing import Any, cast

from outlast.agent import AgentError
from outlast.shared.settings import GraphOptions, SettingsError
from outlast.worker import loops

from . import function, places, targets
from .adapter import Adapter

Options = Callable[[str], GraphOptions]
_LANGGRAPH = "outlast.worker.agents.langgraph"  # loaded only for an agent that is a graph: it takes half a second


@asynccontextmanager
async def loaded(named: Mapping[str, str], options: Options = GraphOptions) -> AsyncGenerator[dict[str, Adapter]]:
    """The agents by name, for as long as the context is open. ``options`` tells what is set for graphs, by agent.

    Importable from the working directory and PYTHONPATH. Raises SettingsError, naming what is wrong.
    """
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    async with AsyncExitStack() as stack:
        yield {name: await adapted(name, targets.find(name, target), stack, options) for name, target in named.items()}


async def adapted(name: str, found: object, stack: AsyncExitStack, options: Options = GraphOptions) -> Adapter:
    """The adapter for an agent, or for what makes one. Raises SettingsError for anything else."""
    if inspect.isasyncgenfunction(found):
        return function.FunctionAgent(found)
    if _is_graph(found):
        return importlib.import_module(_LANGGRAPH).LangGraphAgent(found, options(name))
    if inspect.iscoroutinefunction(found) and len(_required(found)) == 2:
        return function.FunctionAgent(function.from_coroutine(found))
    if callable(found) and not inspect.isclass(found) and (given := _factory_arguments(found)) is not None:
        return await adapted(name, await _made(name, found, given, stack), stack, options)
    raise SettingsError(
        f"Agent {name} is {type(found).__name__}, not an agent: name a LangGraph graph, a function that makes one, "
        "or `async def agent(request, context)` that yields what outlast.agent describes"
        f"{places.place_of_definition(found)}"
    )


def _is_graph(found: object) -> bool:
    return any(kind.__module__.startswith("langgraph.") for kind in type(found).__mro__)


def _required(found: object) -> list[str]:
    parameters = inspect.signature(cast("Any", found)).parameters.values()
    return [p.name for p in parameters if p.default is p.empty and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]


def _factory_arguments(found: object) -> tuple[Any, ...] | None:
    """What to call it with, if it is a factory: nothing, or the configuration that LangGraph's servers give theirs."""
    match _required(found):
        case []:
            return ()
        case ["config"]:
            return ({"configurable": {}},)
        case _:
            return None


async def _made(name: str, factory: Any, arguments: tuple[Any, ...], stack: AsyncExitStack) -> object:
    """What a factory makes: at once, when awaited, or for as long as its context is open."""
    try:
        made: object = factory(*arguments)
        if inspect.isawaitable(made):
            made = await cast("Awaitable[object]", made)
        if isinstance(made, AbstractAsyncContextManager):
            made = await stack.enter_async_context(cast("AbstractAsyncContextManager[object]", made))
    except AgentError as error:  # its author's words
        raise SettingsError(f"Agent {name}: {error.message}") from None
    except (Exception, SystemExit) as error:
        raised = f"{type(error).__name__}: {error}{loops.advice(error)}{places.place_of(error)}"
        raise SettingsError(f"Agent {name}: making it raised {raised}") from error
    return made
