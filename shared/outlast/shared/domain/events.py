"""Events: immutable, numbered facts of a run, in the Responses API's own types."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

CREATED = "response.created"
QUEUED = "response.queued"
IN_PROGRESS = "response.in_progress"
COMPLETED = "response.completed"
FAILED = "response.failed"
INCOMPLETE = "response.incomplete"

TERMINAL_TYPES = frozenset({COMPLETED, FAILED, INCOMPLETE})


@dataclass(frozen=True, slots=True)
class Event:
    """One fact. ``fields`` holds everything but the type and the number."""

    type: str
    sequence_number: int
    fields: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Chunk:
    """Consecutive events as they are stored: lines of compact JSON, numbered from ``first_seq`` to ``last_seq``."""

    first_seq: int
    last_seq: int
    data: str
    age_seconds: float = field(default=0.0, compare=False)
    """How long before it was read its transaction began, by the database's clock."""

    def lines_from(self, sequence_number: int) -> list[str]:
        """The events with this number and later ones. A chunk may begin before a reader's cursor."""
        return self.data.split("\n")[max(sequence_number - self.first_seq, 0) :]
