"""Stalls of an event loop, in words: which lines of the agent's own files kept it, and what its author can do. Pure."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from pathlib import PurePath

CAUSE = "child_stalled"

_FRAME = re.compile(r'^  File "(?P<file>.*)", line (?P<line>\d+) in (?P<function>.+)$', re.MULTILINE)
_INSTALLED = {"site-packages", "dist-packages"}
_LOOP, _THREAD = ("child.py", "main"), ("executing.py", "_marked")
_FRAMES = 3


def place_of(stacks: str, *, on_loop: bool, foreign: Sequence[str], own: Collection[str] = ()) -> str | None:
    """Where the agent's own code was, innermost first: "agent.py:41 in fetch, agent.py:88 in node". No folders.

    ``stacks`` is what faulthandler writes of all threads. ``foreign`` are folders of others' code; what is installed is
    others' too, but for the packages in ``own``. None when it cannot be told: also when several threads are at work.
    """
    where, name = _LOOP if on_loop else _THREAD
    threads = [list(_FRAME.finditer(stack)) for stack in stacks.split("\n\n")]
    at_work = [frames for frames in threads if any(_is(frame, where, name) for frame in frames)]
    if not at_work and on_loop:  # a deep stack is cut off: the thread that wrote it down is that of the loop
        at_work = [list(_FRAME.finditer(stack)) for stack in stacks.split("\n\n") if stack.startswith("Current thread")]
    places = [[_shown(frame) for frame in frames if _is_own(frame["file"], foreign, own)] for frames in at_work]
    told = [place for place in places if place]
    return ", ".join(told[0][:_FRAMES]) if len(told) == 1 else None


def cause_at(place: str | None) -> str:
    """What is kept with the run; `place_in` finds the place in it."""
    return f"{CAUSE} at {place}" if place else CAUSE


def place_in(cause: str | None) -> str | None:
    return cause.removeprefix(f"{CAUSE} at ") if cause and cause.startswith(f"{CAUSE} at ") else None


def explanation(place: str, seconds: float) -> str:
    return (
        f"The agent's code blocked the event loop for {seconds:g} s at {place}. Call what blocks by "
        "asyncio.to_thread(), use an async client, or make the node a plain function, which runs in a thread. "
        "OUTLAST_ISOLATION gives each run of an agent a process of its own (agent=process); "
        "OUTLAST_STALL_SECONDS is how long a loop may stand still."
    )


def _is(frame: re.Match[str], file: str, function: str) -> bool:
    return PurePath(frame["file"]).name == file and frame["function"] == function


def _is_own(file: str, foreign: Sequence[str], own: Collection[str]) -> bool:
    path = PurePath(file)
    if not path.is_absolute() or any(path.is_relative_to(folder) for folder in foreign):
        return False  # "<string>", "<frozen importlib._bootstrap>" and the like have no author
    for number, part in enumerate(path.parts[:-1]):
        if part in _INSTALLED:
            return path.parts[number + 1].removesuffix(".py") in own
    return True


def _shown(frame: re.Match[str]) -> str:
    return f"{PurePath(frame['file']).name}:{frame['line']} in {frame['function']}"
