"""Agents that are LangGraph graphs: the only code that knows the framework. Only children of a worker load it."""

from .agent import LangGraphAgent
from .model_calls import wrap

__all__ = ["LangGraphAgent"]

wrap()
