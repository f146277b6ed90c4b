"""The agent: a model that uses the tools, in a loop, until it has said its answer."""

from __future__ import annotations

import importlib
import os
from typing import Any

from langchain.agents import create_agent  # pyright: ignore[reportUnknownVariableType] - of one parameter
from langchain_core.runnables import Runnable

from .lookup import LookupModel
from .settings import Offline, Settings
from .tools import TOOLS, library

__all__ = ["build"]

PROMPT = """\
You answer questions about the user's files in {title}. Do not answer from memory: search, then read the lines around \
the best places. Quote word for word what you rely on, and cite it as [file:line]. Say so when the files do not have \
the answer. Use clock for the time and calculator for every calculation."""


def build() -> Runnable[Any, Any]:
    """The compiled graph, without a checkpointer: who serves it brings one. Raises AgentError for a wrong setting."""
    settings = Settings.of(os.environ)
    title = library().title
    if isinstance(settings.model, Offline):
        model, middleware = LookupModel(title=title, pace_seconds=settings.pace_seconds), []
    else:
        endpoint = importlib.import_module(".endpoint", __package__)  # its packages are an extra
        model, middleware = endpoint.chat_model(settings), [endpoint.tell_failures]
    return create_agent(model, TOOLS, system_prompt=PROMPT.format(title=title), middleware=middleware)
