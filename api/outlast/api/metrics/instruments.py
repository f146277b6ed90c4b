"""What one replica measures while it lives: for whoever does the work to use."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Histogram, ProcessCollector, disable_created_metrics

disable_created_metrics()  # else a second series for each: when it was made

_BATCH_BUCKETS = (1, 2, 5, 10, 20, 50, 100, 200, 500)
_COMMIT_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5)


class Metrics:
    """The instruments of one replica."""

    def __init__(self) -> None:
        registry = CollectorRegistry()
        self.runs_accepted = Counter(
            "outlast_runs_accepted", "Runs that were submitted and committed", registry=registry
        )
        self.requests_refused = Counter(
            "outlast_requests_refused", "Requests answered with 401, 403 or 429", ["code"], registry=registry
        )
        self.submission_batch_runs = Histogram(
            "outlast_submission_batch_runs", "Runs that shared one commit", buckets=_BATCH_BUCKETS, registry=registry
        )
        self.submission_commit_seconds = Histogram(
            "outlast_submission_commit_seconds", "Time until a batch was committed", buckets=_COMMIT_BUCKETS,
            registry=registry,
        )  # fmt: skip
        self.event_lag_seconds = Histogram(
            "outlast_event_lag_seconds", "From the append of awaited events to their being read for streams",
            buckets=_COMMIT_BUCKETS, registry=registry,
        )  # fmt: skip
        ProcessCollector(registry=registry)
        self.registry = registry
