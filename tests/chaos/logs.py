"""What the processes' own logs may not hold, whatever was broken: what a program of ours did not expect."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Any

_NOTICED_LATE = ("never retrieved", "exception calling callback", "was never awaited")
_SHOWN_CHARACTERS = 300


def faults(logs: Mapping[str, str]) -> list[str]:
    """A sentence for each, the API's first: they are what its clients have met. ``logs`` is by the part's name."""
    ours = [fault for name in logs if name.startswith("api") for fault in _in_log(name, logs[name], "error")]
    others = [fault for name in logs if not name.startswith("api") for fault in _in_log(name, logs[name], "critical")]
    return [*ours, *others]


def _in_log(name: str, text: str, worst: str) -> Iterator[str]:
    """Errors are what workers say of agents, too: ``worst`` is the level of what they say of themselves."""
    levels = ("error", "critical") if worst == "error" else ("critical",)
    for line in text.splitlines():
        entry = _entry(line)
        if entry is None:
            if line.startswith("Traceback "):
                yield f"{name}: a traceback that is no line of the log"
        elif entry.get("level") in levels or any(word in str(entry.get("event")) for word in _NOTICED_LATE):
            last = str(entry.get("exception", "")).strip().rpartition("\n")[2]
            yield f"{name}: {entry.get('event')} {last}"[:_SHOWN_CHARACTERS]


def _entry(line: str) -> dict[str, Any] | None:
    with suppress(ValueError):
        found = json.loads(line)
        return found if isinstance(found, dict) else None
    return None
