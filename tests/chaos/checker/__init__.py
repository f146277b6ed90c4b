"""The judge. It knows what was promised and what the agents do, and nothing of how the product works."""

from __future__ import annotations

from collections.abc import Iterator

from tests.chaos.checker import answers, log, steps, streams
from tests.chaos.checker.evidence import Evidence, Stored
from tests.chaos.checker.violations import Violation

__all__ = ["Evidence", "Stored", "Violation", "judge"]


def judge(evidence: Evidence) -> list[Violation]:
    """All that is wrong with what is left behind, when every run should have ended."""
    return list(_judge(evidence))


def _judge(evidence: Evidence) -> Iterator[Violation]:
    if evidence.leases:
        yield Violation("lease", "", f"{evidence.leases} leases are left")
    may_end_as = {watched.token: watched.may_end_as for watched in evidence.watched}
    for run in evidence.runs.values():
        if run.status not in may_end_as.get(run.token, {"completed"}):
            why = ((run.response or {}).get("error") or {}).get("message", run.last_cause)
            yield Violation(
                "lost", run.token, f"{run.id} ({run.agent}) is {run.status} after {run.attempt} attempts: {why}"
            )
        if run.closed != (run.status not in ("queued", "in_progress")):
            yield Violation(
                "lost", run.token, f"its log is {'closed' if run.closed else 'open'}, its status {run.status}"
            )
        yield from (Violation("log", run.token, sentence) for sentence in log.check(run))
    for watched in evidence.watched:
        yield from (Violation("stream", watched.token, sentence) for sentence in streams.check(watched, evidence))
    yield from answers.check(evidence)
    yield from steps.check(evidence)
