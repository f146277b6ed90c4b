"""The agent that `make run` serves: it answers from a folder of text, with a language model or without one.

Serve it as ``assistant=examples.assistant:agent``. README.md says how to choose the model and the folder.
"""

from __future__ import annotations

import importlib
import os
from typing import Any

from .settings import Settings

__all__ = ["agent", "describe"]


def describe() -> str:
    """Which model answers, in one line for the command line. Raises AgentError for a wrong setting."""
    return str(Settings.of(os.environ).model)


def agent() -> Any:
    """The compiled graph (graph.py). Only now is LangChain loaded: describing the agent need not wait for it."""
    return importlib.import_module(f"{__name__}.graph").build()
