"""Finding the agents that OUTLAST_AGENTS names."""

from __future__ import annotations

import importlib
import inspect
import os
import sys
from collections.abc import Mapping

from outlast.agent import Agent
from outlast.shared.settings import SettingsError

from . import function


def load_agents(targets: Mapping[str, str]) -> dict[str, Agent]:
    """By name. Importable from the working directory and PYTHONPATH. Raises SettingsError, naming what is wrong."""
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    return {name: _load(name, target) for name, target in targets.items()}


def _load(name: str, target: str) -> Agent:
    module_name, _, attribute = target.partition(":")
    try:
        found: object = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is not None and (module_name == error.name or module_name.startswith(f"{error.name}.")):
            raise SettingsError(
                f"Agent {name}: there is no module {error.name!r} (looked in {os.getcwd()} and on PYTHONPATH)"
            ) from None
        raise SettingsError(f"Agent {name}: importing {module_name} failed: {error}") from error
    except Exception as error:
        raise SettingsError(f"Agent {name}: importing {module_name} raised {type(error).__name__}: {error}") from error
    for part in attribute.split("."):
        if not hasattr(found, part):
            raise SettingsError(f"Agent {name}: {module_name} has no attribute {attribute!r}")
        found = getattr(found, part)
    return _adapt(name, target, found)


def _adapt(name: str, target: str, found: object) -> Agent:
    if inspect.isasyncgenfunction(found):
        return found
    if inspect.iscoroutinefunction(found):
        return function.from_coroutine(found)
    raise SettingsError(
        f"Agent {name}: {target} is {type(found).__name__}, not an agent: write "
        "`async def agent(request, context)` that yields what outlast.agent describes"
    )
