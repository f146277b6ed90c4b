"""When a run is tried again whose agent failed with what may have passed by then. Pure: chance is an argument."""

from __future__ import annotations

from dataclasses import dataclass

MAX_SECONDS = 60.0
"""No run waits longer by itself; an endpoint, or the agent, may ask for more."""
_DOUBLED_MOST = 30  # times: enough for any base, and still a number
_SPREAD = 0.1  # of the seconds that were asked for: whoever was refused together comes back one after another


@dataclass(frozen=True, slots=True)
class Transient:
    """A failure that may not happen again."""

    cause: str
    """The exception's type, which is all that a client may know of it."""
    after: float | None = None
    """Seconds to wait at least, where somebody said so."""


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    max_retries: int
    """Of one run; 0: it fails at once."""
    base_seconds: float
    """Before the first retry; twice as long before each further one."""


@dataclass(frozen=True, slots=True)
class Backoff:
    """A retry that is to be made."""

    seconds: float
    cause: str


def back_off(
    failure: Transient, policy: RetryPolicy, *, retries: int, seconds_left: float, jitter: float
) -> Backoff | None:
    """None: there are no retries left after so many, or none could begin before the deadline.

    ``jitter`` is from 0 to 1.
    """
    if retries >= policy.max_retries:
        return None
    if failure.after is not None:
        seconds = failure.after * (1 + _SPREAD * jitter)
    else:
        longest = min(policy.base_seconds * 2 ** min(retries, _DOUBLED_MOST), MAX_SECONDS)
        seconds = longest * (1 + jitter) / 2
    return Backoff(seconds, failure.cause) if seconds < seconds_left else None
