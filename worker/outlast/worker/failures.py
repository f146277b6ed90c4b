"""What follows from an exception of an agent's code, and when a run is not tried any more."""

from __future__ import annotations

from datetime import datetime

import structlog

from outlast.agent import AgentError, Retry
from outlast.shared.domain.overdue import MESSAGES, EndReason
from outlast.shared.domain.retry import Backoff, RetryPolicy, back_off
from outlast.shared.domain.runs import Run
from outlast.shared.settings import Settings

from . import loops, stalls
from .transient import transient

log = structlog.get_logger()


def consequence(
    error: Exception, run: Run, policy: RetryPolicy, *, now: datetime, seconds_left: float, jitter: float
) -> Backoff | AgentError:
    """Another try, or what the client learns: the exception's type. The rest may hold secrets and is for the log.

    ``seconds_left``: until its deadline. ``jitter`` is from 0 to 1.
    """
    failure = transient(error, now)
    if failure is None:
        return _told(error, type(error).__name__)
    backoff = back_off(failure, policy, retries=run.retries, seconds_left=seconds_left, jitter=jitter)
    if backoff is not None:
        return backoff
    count = f"{run.retries} {'retry' if run.retries == 1 else 'retries'}"
    return _told(error, failure.cause, f", also after {count}" if run.retries else "")


def given_up(run: Run, settings: Settings) -> AgentError | None:
    """Why this run is not tried again: what it did to its processes counts, and nothing that others did to it."""
    if run.charged_attempts < settings.max_attempts:
        return None
    how = f"{run.charged_attempts} of its attempts ended with the death of their process (OUTLAST_MAX_ATTEMPTS"
    place = stalls.place_in(run.last_cause)
    last, more = (
        (stalls.CAUSE, f" {stalls.explanation(place, settings.stall_seconds)}") if place else (run.last_cause, "")
    )
    return AgentError(f"The run was given up: {how}; the last of them: {last}).{more}", code="max_attempts_exceeded")


def failed_for(reason: EndReason) -> AgentError:
    return AgentError(MESSAGES[reason], code=reason.value)


def _told(error: Exception, cause: str, tried: str = "") -> AgentError:
    if isinstance(error, Retry) and error.message:  # the agent's own words
        return AgentError(f"{error.message.removesuffix('.')}{tried}.", code=error.code)
    log.error("agent.failed", exc_info=error)
    return AgentError(f"The agent failed with {cause}{tried}{loops.advice(error)}.")
