"""The agent that `make run` serves: offline lookup over a folder of text, no language model.

Serve it as ``assistant=examples.assistant:agent``. README.md says how to point it at your own folder.
"""

from .lookup import agent, describe

__all__ = ["agent", "describe"]
