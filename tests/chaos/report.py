"""What came of a campaign, in figures."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median

from tests.chaos.checker import steps
from tests.chaos.checker.evidence import Evidence
from tests.chaos.checker.violations import Violation
from tests.chaos.ledger import Entry
from tests.chaos.nemeses import Blow
from tests.chaos.world import Size


@dataclass
class Report:
    seed: int
    seconds: float
    blows: Sequence[Blow]
    evidence: Evidence
    violations: Sequence[Violation]
    hops: int
    causes: Mapping[str, int]
    """Why runs went back to the queue, by what the processes have logged."""
    size: Size

    @property
    def takeovers(self) -> int:
        """Attempts beyond the first of each run."""
        return sum(max(run.attempt - 1, 0) for run in self.evidence.runs.values())

    def lines(self) -> list[str]:
        blows = Counter(blow.name for blow in self.blows)
        ends = Counter(run.status for run in self.evidence.runs.values())
        deleted = sum(watched.deleted for watched in self.evidence.watched)
        faults = [violation.sentence for violation in self.violations if violation.kind == "fault"]
        return [
            f"faults in the logs  {len(faults)}",
            *(f"  {fault}" for fault in faults),
            f"seed                {self.seed}",
            f"time                {self.seconds:g} s, lease {self.size.lease_seconds:g} s",
            f"runs                {len(self.evidence.runs)}: "
            + ", ".join(f"{n} {status}" for status, n in ends.most_common())
            + f", and {deleted} deleted",
            f"blows               {len(self.blows)}: " + ", ".join(f"{n} {name}" for name, n in blows.most_common()),
            f"takeovers           {self.takeovers}: " + ", ".join(f"{n} {cause}" for cause, n in self.causes.items()),
            f"recovery            {_spread(recoveries(self.blows, self.evidence.ledger))}",
            *self._undisturbed(),
            f"steps re-run        {steps.run_again(self.evidence.ledger)}",
            f"clients' hops       {self.hops}",
            f"violations          {len(self.violations)}",
        ]

    def _undisturbed(self) -> list[str]:
        """By kind, of those blows around which nothing else was broken."""
        found: dict[str, list[float]] = defaultdict(list)
        for blow in self.blows:
            if (
                blow.lost
                and blow.whole
                and not any(_meet(blow, other, self.size.lease_seconds) for other in self.blows)
            ):
                found[blow.name] += recoveries([blow], self.evidence.ledger)
        return [f"  {name:<18}{_spread(seconds)}" for name, seconds in found.items() if seconds]


def _meet(blow: Blow, other: Blow, around: float) -> bool:
    """Whether the other one may have held up what had to be mended after this one."""
    if other is blow or other.target.startswith("api"):
        return False
    return other.at < blow.at + around and other.until > blow.at - around


def recoveries(blows: Sequence[Blow], ledger: Sequence[Entry]) -> list[float]:
    """Seconds from each blow to the next attempt's first act, for each run that was lost by it."""
    by_token: dict[str, list[Entry]] = defaultdict(list)
    by_pid: dict[int, set[str]] = defaultdict(set)
    for entry in ledger:
        if entry.token:
            by_token[entry.token].append(entry)
            by_pid[entry.pid].add(entry.token)
    found: list[float] = []
    for blow in blows:
        for token in {token for pid in blow.lost for token in by_pid[pid]}:
            before = [entry for entry in by_token[token] if entry.at <= blow.at]
            if before and before[-1].pid in blow.lost:
                attempt = max(entry.attempt for entry in before)
                after = (e.at for e in by_token[token] if e.attempt > attempt and e.at > blow.at)
                if (first := next(after, None)) is not None:
                    found.append(first - blow.at)
    return found


def _spread(seconds: Sequence[float]) -> str:
    if not seconds:
        return "no run was lost"
    return f"p50 {median(seconds):.1f} s, max {max(seconds):.1f} s, of {len(seconds)} runs"
