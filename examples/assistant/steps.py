"""One use of a tool, as the offline model plans it, and what a tool raises."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from langchain_core.tools import ToolException

__all__ = ["Calculate", "Clock", "Quote", "Read", "Search", "Step", "ToolError"]


@dataclass(frozen=True, slots=True)
class Search:
    """Rank the passages of the folder by the words of ``query``."""

    tool: ClassVar[str] = "search"
    query: str

    @property
    def arguments(self) -> Mapping[str, Any]:
        return {"query": self.query}


@dataclass(frozen=True, slots=True)
class Read:
    """Show lines of one file, numbered from 1, both ends included. Without ``last_line``: as many as fit."""

    tool: ClassVar[str] = "read"
    file: str
    first_line: int = 1
    last_line: int | None = None

    @property
    def arguments(self) -> Mapping[str, Any]:
        end = {} if self.last_line is None else {"last_line": self.last_line}
        return {"file": self.file, "first_line": self.first_line, **end}


@dataclass(frozen=True, slots=True)
class Quote(Read):
    """A `Read` of which only the sentence ``text``, found at ``line``, and what follows it is said."""

    line: int = 1
    text: str = ""


@dataclass(frozen=True, slots=True)
class Clock:
    """Tell the time, in UTC and in ``timezone``: an IANA name or the last part of one ("Tokyo")."""

    tool: ClassVar[str] = "clock"
    timezone: str | None = None

    @property
    def arguments(self) -> Mapping[str, Any]:
        return {} if self.timezone is None else {"timezone": self.timezone}


@dataclass(frozen=True, slots=True)
class Calculate:
    """Evaluate arithmetic written as in Python."""

    tool: ClassVar[str] = "calculator"
    expression: str

    @property
    def arguments(self) -> Mapping[str, Any]:
        return {"expression": self.expression}


Step = Search | Read | Clock | Calculate


class ToolError(ToolException):
    """A tool could not do what was asked. The message is the tool's result: the model and the client read it."""
