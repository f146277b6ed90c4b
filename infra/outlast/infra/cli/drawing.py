"""Runs and workers as lines of text."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime

from outlast.shared.domain.ids import response_id
from outlast.shared.domain.operating import RunState
from outlast.shared.domain.plain_text import on_a_line
from outlast.shared.store.operating import LOOKED_AT_MOST, Match, RunPage
from outlast.shared.store.overview import WorkerState

from .operators import span, table

_RUN_HEADINGS = ("ID", "AGENT", "STATUS", "ATTEMPT", "AGE", "DURATION", "WORKER", "LAST CAUSE")
_WORKER_HEADINGS = (
    "WORKER", "STATE", "CHILDREN", "SLOTS", "RUNNING", "OLDEST RUN", "UP", "SEEN", "VERSION", "QUEUES", "NAME",
)  # fmt: skip


def runs(found: Sequence[RunState]) -> list[str]:
    return table(_RUN_HEADINGS, [_run_row(run) for run in found])


def _run_row(run: RunState) -> tuple[str, ...]:
    attempts = f"{run.attempt}" + (f" ({run.retries} retried)" if run.retries else "")
    cancelling = run.cancel_requested_at is not None and not run.status.terminal
    return (
        response_id(run.run_id),
        run.agent,
        "cancelling" if cancelling else run.status.value,
        attempts,
        _since(run.created_at),
        _since(run.started_at, run.finished_at) if run.started_at else "-",
        run.worker or "-",
        run.error_code or run.last_cause or "-",
    )


def what_was_left_out(page: RunPage) -> str | None:
    if page.looked_at_all:
        return None
    further = f"; go on with --after {response_id(page.next_after)}" if page.next_after else ""
    return f"Only {LOOKED_AT_MOST:,} runs were looked at, the newest{further}."


def run(run: RunState) -> list[str]:
    """Everything that is known of one run, a line for each thing that there is."""
    counted = [
        f"{count} {what}"
        for count, what in (
            (run.retries, "retried"),
            (run.charged_attempts, "charged"),
            (run.forgiven_attempts, "forgiven"),
        )
        if count
    ]
    told = {
        "run": response_id(run.run_id),
        "status": run.status.value + (", not ready" if run.status == "queued" and not run.ready else ""),
        "error": run.error_code and f"{run.error_code}: {run.error_message}",
        "agent": run.agent,
        "principal": run.principal,
        "thread": run.thread,
        "queue": run.queue,
        "attempts": f"{run.attempt}" + (f" ({', '.join(counted)})" if counted else ""),
        "reopened": f"{run.reopened}" if run.reopened else None,
        "last cause": run.last_cause,
        "worker": run.owner,
        "lease": run.claimed_at and f"since {_when(run.claimed_at)}, {run.lease_seconds_left or 0:.1f} s left",
        "created": _when(run.created_at),
        "started": run.started_at and _when(run.started_at),
        "deadline": run.deadline_at and not run.status.terminal and _when(run.deadline_at),
        "cancelling": run.cancel_requested_at and f"asked {_when(run.cancel_requested_at)}",
        "ended": run.finished_at and f"{_when(run.finished_at)}, after {_since(run.created_at, run.finished_at)}",
        "events": f"{run.last_seq + 1}",
    }
    return [on_a_line(f"{name:<11}{text}") for name, text in told.items() if text]


def workers(found: Sequence[WorkerState]) -> list[str]:
    return table(_WORKER_HEADINGS, [_worker_row(worker) for worker in found])


def _worker_row(worker: WorkerState) -> tuple[str, ...]:
    draining = worker.draining or worker.drain_requested
    return (
        f"{worker.host}:{worker.pid}",
        "silent" if not worker.alive else "draining" if draining else "resting" if worker.resting else "alive",
        str(worker.children),
        str(worker.slots),
        str(worker.running),
        "-" if worker.oldest_seconds is None else span(worker.oldest_seconds),
        span(worker.up_seconds),
        f"{span(worker.seen_seconds)} ago",
        worker.version,
        " ".join(worker.queues),
        worker.owner,
    )


def matches(found: Iterable[Match]) -> list[str]:
    """How many of each agent and status."""
    counted = Counter((match.agent, match.status.value) for match in found)
    return table(("AGENT", "STATUS", "RUNS"), [(*key, f"{count:,}") for key, count in sorted(counted.items())])


def _since(begin: datetime, end: datetime | None = None) -> str:
    return span(max(((end or datetime.now(UTC)) - begin).total_seconds(), 0))


def _when(time: datetime) -> str:
    return time.astimezone().strftime("%Y-%m-%d %H:%M:%S")
