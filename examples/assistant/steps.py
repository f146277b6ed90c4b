"""The words between the rules and the tools: what one step asks for, and what came of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

__all__ = ["Calculate", "Clock", "Outcome", "Quote", "Read", "Search", "Step", "ToolError"]


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
    """A `Read` of which only the sentences that have most of ``rarity``'s terms are said."""

    rarity: Mapping[str, float] = field(default_factory=dict[str, float])


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


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a tool returned, what the answer says of it, and the steps that follow from it."""

    output: str
    says: str
    then: tuple[Step, ...] = ()


class ToolError(Exception):
    """A tool could not do what was asked. The message is shown to the client."""
