"""What operators see of runs, and what they may be refused."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import Enum
from typing import Any
from uuid import UUID

from .ids import response_id
from .runs import RunStatus


@dataclass(frozen=True, slots=True)
class RunState:
    """A run of any principal: where it stands and how it came there. Nothing of what it was asked or has answered."""

    run_id: UUID
    status: RunStatus
    principal: str
    thread: str
    agent: str
    queue: str
    ready: bool
    attempt: int
    retries: int
    charged_attempts: int
    forgiven_attempts: int
    reopened: int
    last_cause: str | None
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    deadline_at: datetime | None
    cancel_requested_at: datetime | None
    owner: str | None
    """The worker that has it: ``host:pid:…``; or ``ending`` while the sweep ends it."""
    claimed_at: datetime | None
    """Since when that worker has it."""
    lease_seconds_left: float | None
    """Below 0 when the lease has ended and nobody has noticed yet."""
    last_seq: int
    error_code: str | None
    error_message: str | None

    @property
    def worker(self) -> str | None:
        """``host:pid`` of its worker."""
        return self.owner and (self.owner.rpartition(":")[0] or self.owner)


def described(run: RunState) -> dict[str, Any]:
    """The same for a program, in the API's words."""
    failed = run.error_code is not None
    return {
        "id": response_id(run.run_id),
        "status": run.status.value,
        "agent": run.agent,
        "principal": run.principal,
        "conversation": run.thread,
        "queue": run.queue,
        "ready": run.ready,
        "created_at": run.created_at,
        "started_at": run.started_at,
        "finished_at": run.finished_at,
        "deadline_at": run.deadline_at,
        "cancel_requested_at": run.cancel_requested_at,
        "attempt": run.attempt,
        "retries": run.retries,
        "charged_attempts": run.charged_attempts,
        "forgiven_attempts": run.forgiven_attempts,
        "reopened": run.reopened,
        "last_cause": run.last_cause,
        "worker": run.owner,
        "claimed_at": run.claimed_at,
        "lease_seconds_left": run.lease_seconds_left,
        "events": run.last_seq + 1,
        "error": {"code": run.error_code, "message": run.error_message} if failed else None,
    }


@dataclass(frozen=True, slots=True)
class RunFilter:
    """Which runs are meant: those that meet all of it."""

    status: RunStatus | None = None
    agent: str | None = None
    principal: str | None = None
    older_than_seconds: float | None = None
    """Since it was submitted."""
    error_code: str | None = None

    @property
    def is_empty(self) -> bool:
        return self == RunFilter()


class RetryRefusal(Enum):
    """Why a run cannot be retried; the value is what an operator is told."""

    NOT_FOUND = "there is no such run"
    ACTIVE = "it has not ended"
    SUCCEEDED = "it has neither failed nor been cancelled"
    THREAD_BUSY = "another run of its conversation is active"
    THREAD_MOVED_ON = "a later run of its conversation has begun since, and its checkpoints have moved on"
    EVENTS_GONE = "its events have been removed"

    @property
    def code(self) -> str:
        return self.name.lower()
