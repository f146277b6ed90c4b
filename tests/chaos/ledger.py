"""What the agents really did, told by themselves: a file outside of Outlast, in the order in which it happened.

Each line is one write to the end of the file, which is atomic, needs no server, and is there however its writer dies.
"""

from __future__ import annotations

import functools
import os
import time
from dataclasses import dataclass
from pathlib import Path

VARIABLE = "CHAOS_LEDGER"

START, BEGIN, END, SAY, EFFECT, KEPT = "start", "begin", "end", "say", "effect", "kept"


@dataclass(frozen=True, slots=True)
class Entry:
    """One thing that was done by an attempt. ``token`` names its run: it is the request's text."""

    at: float
    """Seconds of the machine's monotonic clock, which no skew reaches."""
    pid: int
    kind: str
    token: str = ""
    attempt: int = 0
    step: str = ""
    task: str = ""
    """LangGraph's id of the step's task: the same in each attempt that runs it from the same checkpoint."""
    detail: str = ""
    """A word for ``say``, an idempotency key for ``effect``."""


def note(kind: str, token: str = "", attempt: int = 0, step: str = "", task: str = "", detail: str = "") -> None:
    """Write it down, before or after doing it, as the kind says."""
    fields = (f"{time.monotonic():.6f}", str(os.getpid()), kind, token, str(attempt), step, task, detail)
    os.write(_descriptor(), ("\t".join(fields) + "\n").encode())


@functools.cache
def _descriptor() -> int:
    return os.open(os.environ[VARIABLE], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)


def read(file: Path, after: int = 0) -> list[Entry]:
    """The entries from this place of the file on."""
    if not file.exists():
        return []
    with file.open("rb") as opened:
        opened.seek(after)
        return [_entry(line) for line in opened.read().decode().splitlines()]


def _entry(line: str) -> Entry:
    at, pid, kind, token, attempt, step, task, detail = line.split("\t")
    return Entry(float(at), int(pid), kind, token, int(attempt), step, task, detail)
