"""What workers measure: totals, and distributions over buckets that are fixed here.

A child keeps what is new and hands it on once a beat; its parent adds it up and reports the totals; every API replica
shows them. A total therefore never falls while its worker lives, whatever becomes of its children.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Distribution:
    """Something that is measured again and again."""

    name: str
    meaning: str
    buckets: tuple[float, ...]
    """Upper bounds; what is above the last is counted too."""
    labels: tuple[str, ...] = ()


START_SECONDS = Distribution(
    "start_seconds",
    "From the arrival of a request to the first claim of its run",
    (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 1800),
    ("agent",),
)
RUN_SECONDS = Distribution(
    "run_seconds",
    "From the first claim of a run to its end, over all attempts and the waits between them",
    (0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600, 1800, 3600),
    ("agent", "status"),
)
FLUSH_SECONDS = Distribution(
    "flush_seconds",
    "Until a batch of events was committed",
    (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5),
)
FLUSH_RUNS = Distribution("flush_runs", "Runs whose events shared a commit", (1, 2, 5, 10, 20, 50, 100, 200, 500))
FLUSH_EVENTS = Distribution("flush_events", "Events that shared a commit", (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000))
DISTRIBUTIONS = (START_SECONDS, RUN_SECONDS, FLUSH_SECONDS, FLUSH_RUNS, FLUSH_EVENTS)


@dataclass(slots=True)
class Sample:
    """What was seen of a distribution under one set of labels."""

    labels: list[str]
    counts: list[int]
    """By bucket, not cumulative; the last one is for what is above all bounds."""
    sum: float = 0.0


Samples = dict[str, list[Sample]]
"""By the name of their distribution."""


class Tally:
    def __init__(self) -> None:
        self.counters: Counter[str] = Counter()
        self._samples: dict[tuple[str, ...], Sample] = {}

    def observe(self, distribution: Distribution, value: float, *labels: str) -> None:
        buckets = distribution.buckets
        sample = self._sample(distribution.name, labels, len(buckets) + 1)
        sample.counts[bisect_left(buckets, value)] += 1
        sample.sum += value

    @property
    def samples(self) -> Samples:
        found: Samples = {}
        for (name, *_), sample in self._samples.items():
            found.setdefault(name, []).append(sample)
        return found

    def take(self) -> dict[str, Any]:
        """What has been counted since this was last asked, as JSON; empty if nothing was."""
        counters, samples = dict(+self.counters), self.samples
        self.counters.clear()
        self._samples = {}
        plain = {name: [asdict(sample) for sample in found] for name, found in samples.items()}
        return {"counters": counters, "samples": plain} if counters or plain else {}

    def add(self, counters: Mapping[str, int], samples: Mapping[str, Iterable[Mapping[str, Any]]]) -> None:
        """Count what another has taken."""
        self.counters.update(counters)
        for name, found in samples.items():
            for theirs in found:
                counts: list[int] = theirs["counts"]
                ours = self._sample(name, theirs["labels"], len(counts))
                ours.counts = [mine + their for mine, their in zip(ours.counts, counts, strict=True)]
                ours.sum += theirs["sum"]

    def _sample(self, name: str, labels: Iterable[str], buckets: int) -> Sample:
        key = (name, *labels)
        if key not in self._samples:
            self._samples[key] = Sample([*labels], [0] * buckets)
        return self._samples[key]
