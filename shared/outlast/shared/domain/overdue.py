"""Why a run is ended by something other than its agent."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from uuid import UUID


class EndReason(StrEnum):
    """The value is also the code of the error, where there is one."""

    CANCELLED = "cancelled"
    TASK_TIMEOUT = "task_timeout"
    EXPIRED = "expired_in_queue"


MESSAGES = {
    EndReason.TASK_TIMEOUT: "The run took longer than it may (TASK_TIMEOUT_SECONDS, or its timeout_seconds).",
    EndReason.EXPIRED: "No worker took the run in time (OUTLAST_EXPIRE_QUEUED_AFTER_SECONDS, or its "
    "expire_queued_after_seconds).",
}
"""What a client is told when a run has failed for this reason."""


@dataclass(frozen=True, slots=True)
class Overdue:
    """A run that is to end, as it was when that was found."""

    run_id: UUID
    principal: str
    attempt: int
    """Its latest; 0: no worker has begun it."""
    reason: EndReason
