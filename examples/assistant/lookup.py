"""The agent: plan, run each step as a tool call, then say what came of it, word by word."""

from __future__ import annotations

import asyncio
import itertools
import math
import os
import re
from collections import deque
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from outlast.agent import AgentError, Context, Emission, Request, ToolCall, ToolResult

from .library import Library
from .rules import plan
from .steps import Outcome, Step, ToolError
from .tools import run

__all__ = ["Settings", "agent", "describe"]

OPENING = "Offline lookup (no language model): "

# A word with the space before it, or a whole numbered line of a file.
_PIECE = re.compile(r"\n+ *\d+  [^\n]*|\s*\S+|\s+")


@dataclass(frozen=True, slots=True)
class Settings:
    """Where to look, and how long to rest after each piece of the answer (0: not at all)."""

    folder: str
    pace_seconds: float

    @classmethod
    def of(cls, environment: Mapping[str, str]) -> Settings:
        """From ``ASSISTANT_FOLDER`` and ``ASSISTANT_PACE_SECONDS``. Raises `AgentError`."""
        pace = environment.get("ASSISTANT_PACE_SECONDS") or "0.01"
        try:
            seconds = float(pace)
        except ValueError:
            seconds = math.nan
        if not 0 <= seconds <= 60:
            raise AgentError(f"ASSISTANT_PACE_SECONDS must be 0 to 60 seconds, not {pace!r}")
        return cls(environment.get("ASSISTANT_FOLDER", ""), seconds)


def describe() -> str:
    """What stands where a model would, in one line for the command line."""
    return "offline lookup, no language model"


async def agent(request: Request, context: Context) -> AsyncIterator[Emission | str]:
    """Look the question up in the user's files, or tell the time, calculate, or show lines of a file."""
    settings = Settings.of(os.environ)
    library = Library.at(settings.folder)
    call_ids = _call_ids(context)
    steps = deque(plan(request.text))
    said = [] if steps else [_abilities(library)]
    while steps:
        step = steps.popleft()
        call_id = next(call_ids)
        yield ToolCall(step.tool, step.arguments, call_id)
        outcome, error = await asyncio.to_thread(_attempt, step, library)
        yield ToolResult(call_id, outcome.output, error)
        said.append(outcome.says)
        steps.extendleft(reversed(outcome.then))
    for piece in _PIECE.findall(OPENING + "\n\n".join(filter(None, said))):
        yield piece
        if settings.pace_seconds:
            await asyncio.sleep(settings.pace_seconds)


def _attempt(step: Step, library: Library) -> tuple[Outcome, str | None]:
    try:
        return run(step, library, datetime.now(UTC)), None
    except ToolError as error:
        return Outcome("", f"The {step.tool} tool failed: {error}."), str(error)


def _call_ids(context: Context) -> Iterator[str]:
    """Unique over the runs of a conversation and the attempts of a run; at most 64 characters."""
    run_id = context.response_id.removeprefix("resp_")[-40:]
    return (f"call_{run_id}_{context.attempt}_{number}" for number in itertools.count(1))


def _abilities(library: Library) -> str:
    return (
        f"Ask about the files in {library.title}, and the passages that match best are quoted. "
        "“read FILE 10-20” shows lines of one of them, “what time is it in Tokyo?” asks the clock, "
        "and “12 * (3 + 4)” the calculator."
    )
