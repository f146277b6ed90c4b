"""The run: its statuses and what is known of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any
from uuid import UUID


class RunStatus(StrEnum):
    """The Responses API's own statuses, inside and outside."""

    QUEUED = "queued"
    IN_PROGRESS = "in_progress"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"
    INCOMPLETE = "incomplete"

    @property
    def terminal(self) -> bool:
        return self not in (RunStatus.QUEUED, RunStatus.IN_PROGRESS)


class ToolItems(StrEnum):
    """How tools that the server runs appear in the stream; chosen once per run, since the log has one form."""

    MCP_CALL = "mcp_call"
    FUNCTION_CALL = "function_call"
    HIDDEN = "hidden"


class Durability(StrEnum):
    """When the checkpoints of a graph are written; LangGraph's own words."""

    SYNC = "sync"
    """Before the next step begins."""
    ASYNC = "async"
    """While the next step is under way."""
    EXIT = "exit"
    """When the graph ends, or its worker lets go of it."""


class MultitaskStrategy(StrEnum):
    """What becomes of a run whose thread has another one that has not ended; LangGraph's own words."""

    ENQUEUE = "enqueue"
    """It waits for that one."""
    REJECT = "reject"
    """It is refused."""
    INTERRUPT = "interrupt"
    """That one is cancelled; what it has reached stays in the thread."""


class AgentKind(StrEnum):
    """What an agent is made of."""

    GRAPH = "graph"
    FUNCTION = "function"


class Isolation(StrEnum):
    """Whether runs of an agent share a process with others."""

    SHARED = "shared"
    PROCESS = "process"
    """Each has one to itself while it runs."""


@dataclass(frozen=True, slots=True)
class Submission:
    """A run to be, as the API accepts it. Its first events are stored with it."""

    run_id: UUID
    thread_id: UUID
    thread: str
    principal: str
    agent: str
    created_at: datetime
    timeout_seconds: int
    background: bool
    store: bool
    tool_items: ToolItems
    previous_run_id: UUID | None
    request: Mapping[str, Any]
    title: str = ""
    """The beginning of what is asked, as a list of runs shows it."""
    queue: str = "default"
    priority: int = 0
    expire_after_seconds: int | None = None
    """It fails if no worker has taken it by then."""
    multitask_strategy: MultitaskStrategy = MultitaskStrategy.ENQUEUE
    idempotency_key: str | None = None
    traceparent: str | None = None
    """The root of its trace, if it is traced, as W3C Trace Context writes it."""
    request_digest: bytes | None = None
    """With a key: SHA-256 of the request, to tell a repeated request from another one."""


@dataclass(frozen=True, slots=True)
class Run:
    """One execution of an agent for one request."""

    run_id: UUID
    thread_id: UUID
    """The thread in our tables, where its name is one of the principal's."""
    thread: str
    principal: str
    agent: str
    status: RunStatus
    attempt: int
    created_at: datetime
    deadline_at: datetime | None
    background: bool
    store: bool
    tool_items: ToolItems
    request: Mapping[str, Any]
    last_seq: int
    """The highest number in its log when this was read."""
    response: str | None = None
    """The final response object as JSON text, once it has finished."""
    cancel_requested: bool = False
    charged_attempts: int = 0
    """Attempts that ended with the death of the process they ran in."""
    last_cause: str | None = None
    """Why the latest of the charged attempts ended; without any, the latest of all."""
    retries: int = 0
    """Attempts that ended with a transient error, after which it was tried again."""
    forgiven_attempts: int = 0
    """Attempts before an operator had it retried: limits count those after them."""
    reopened: int = 0
    """How often an operator has had it retried after its end, which was withdrawn from the log each time."""
    previous_run_id: UUID | None = None
    """The run that this one continues, by ``previous_response_id``. It may have been deleted since."""
    abandoned: bool = False
    """Nobody waits for it, though it is in the foreground."""
    expired: bool = False
    """It was claimed later than it may be."""
    waited_seconds: float | None = None
    """From its arrival, by the API's clock, to its first claim, by the database's. None: it has not been claimed."""
    traceparent: str | None = None
    """The root of its trace, if it is traced, as W3C Trace Context writes it."""
    begun_seconds: float | None = None
    """From its first claim to when this was read, by the database's clock."""
    seconds_left: float | None = None
    """Until its deadline when this was read, by the database's clock."""


@dataclass(frozen=True, slots=True)
class ListedRun:
    """An entry in its principal's list of runs."""

    run_id: UUID
    agent: str
    status: RunStatus
    attempt: int
    thread: str
    background: bool
    title: str | None
    """None in runs that are older than titles."""
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None


@dataclass(frozen=True, slots=True)
class Lease:
    """The right of one attempt to write its run."""

    run_id: UUID
    attempt: int
