"""What is measured: by this replica while it lives, and of all queues and workers when somebody looks.

docs/metrics.md lists everything; a test compares.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from prometheus_client import CollectorRegistry, Counter, Histogram, ProcessCollector, disable_created_metrics
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from outlast.shared.connections import Database
from outlast.shared.domain.runs import RunStatus
from outlast.shared.doorbell import Doorbell
from outlast.shared.store.overview import Overview, WorkerState
from outlast.shared.sweep import Sweep

from .tail import Tail

disable_created_metrics()  # else a second series for each: when it was made

_BATCH_BUCKETS = (1, 2, 5, 10, 20, 50, 100, 200, 500)
_COMMIT_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5)


class Metrics:
    """The instruments of one replica, for whoever does the work to use."""

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
        ProcessCollector(registry=registry)
        self.registry = registry


@dataclass(frozen=True, eq=False)
class ReplicaState(Collector):
    """What this replica counts by itself or is in the middle of."""

    database: Database
    tail: Tail
    doorbell: Doorbell
    sweep: Sweep

    def collect(self) -> Iterator[Metric]:
        pool = self.database.pool_stats()
        yield _gauge("outlast_streams", "Streams open, and requests that wait for a run", self.tail.streams)
        yield _counter("outlast_events_sent", "Events given to streams", self.tail.events_taken)
        yield _gauge("outlast_listening", "1 while LISTEN works; events are polled for otherwise", self.tail.listening)
        yield _counter("outlast_doorbells_lost", "Bells that could not be rung", self.doorbell.lost)
        yield _counter(
            "outlast_runs_taken_back", "Runs this replica's sweep took from dead workers", self.sweep.taken_back
        )
        yield _gauge("outlast_pool_connections", "Connections in the pool", pool.get("pool_size", 0))
        yield _gauge("outlast_pool_idle_connections", "Those that are free", pool.get("pool_available", 0))
        yield _gauge("outlast_pool_waiting", "Work that waits for a connection now", pool.get("requests_waiting", 0))
        yield _counter("outlast_pool_waits", "Work that had to wait for a connection", pool.get("requests_queued", 0))
        yield _counter("outlast_pool_wait_seconds", "How long it waited in all", pool.get("requests_wait_ms", 0) / 1000)
        yield _counter("outlast_pool_errors", "Work that got no connection in time", pool.get("requests_errors", 0))


@dataclass(frozen=True, eq=False)
class SystemState(Collector):
    """What all replicas say alike, since they read it from the database; None when it cannot be read."""

    overview: Overview | None

    def collect(self) -> Iterator[Metric]:
        yield _gauge("outlast_database_up", "1 when the numbers below could be read", self.overview is not None)
        if self.overview is not None:
            yield from _queues(self.overview)
            yield from _workers(self.overview)


def _queues(overview: Overview) -> Iterator[Metric]:
    yield _gauge("outlast_queued_runs", "Runs that wait, in all queues; an estimate when many", overview.queued)
    ready = GaugeMetricFamily("outlast_queue_ready_runs", "Runs that may be claimed, up to 10,000", labels=["queue"])
    waiting = GaugeMetricFamily(
        "outlast_queue_waiting_runs", "Runs behind another of their thread, up to 10,000", labels=["queue"]
    )
    oldest = GaugeMetricFamily("outlast_queue_oldest_seconds", "Age of the oldest ready run", labels=["queue"])
    running = GaugeMetricFamily("outlast_queue_running_runs", "Runs in progress, up to 10,000", labels=["queue"])
    for name, queue in overview.queues.items():
        ready.add_metric([name], queue.ready)
        waiting.add_metric([name], queue.waiting)
        oldest.add_metric([name], queue.oldest_seconds)
        running.add_metric([name], queue.running)
    by_agent = GaugeMetricFamily("outlast_agent_running_runs", "Runs in progress, up to 10,000", labels=["agent"])
    for name, count in overview.running_by_agent.items():
        by_agent.add_metric([name], count)
    yield from (ready, waiting, oldest, running, by_agent)


# By worker, not summed: a sum falls when a worker ends, which a monitor takes for a counter that began anew.
_COUNTERS = {
    "runs_claimed": "Runs claimed",
    "runs_handed_back": "Runs put back into the queue by the worker that had them",
    "runs_retried": "Runs put back to be tried again after a transient error",
    "runs_taken_back": "Runs the worker's sweep took from dead workers",
    "attempts_without_end": "Attempts that ended without ending their run",
    "child_deaths": "Child processes that died",
    "events": "Events of runs that have ended",
}


def _workers(overview: Overview) -> Iterator[Metric]:
    workers = [worker for worker in overview.workers if worker.alive]
    yield _gauge("outlast_workers", "Workers that are alive", len(workers))
    for name, what in (
        ("children", "Processes that can run agents"),
        ("slots", "Runs the worker takes at once"),
        ("running", "Runs it has"),
        ("draining", "1 while it stops"),
    ):
        family = GaugeMetricFamily(f"outlast_worker_{name}", what, labels=["worker"])
        for worker in workers:
            family.add_metric([worker.owner], float(getattr(worker, name)))
        yield family
    for name, what in _COUNTERS.items():
        counter = CounterMetricFamily(f"outlast_worker_{name}", what, labels=["worker"])
        for worker in workers:
            counter.add_metric([worker.owner], worker.counters.get(name, 0))
        yield counter
    yield _finished(workers)


def _finished(workers: list[WorkerState]) -> Metric:
    finished = CounterMetricFamily(
        "outlast_worker_runs_finished", "Runs ended, by their status", labels=["worker", "status"]
    )
    for worker in workers:
        for status in RunStatus:
            if status.terminal:
                finished.add_metric([worker.owner, status], worker.counters.get(f"runs_{status}", 0))
    return finished


def _gauge(name: str, what: str, value: float) -> Metric:
    return GaugeMetricFamily(name, what, value=value)


def _counter(name: str, what: str, value: float) -> Metric:
    return CounterMetricFamily(name, what, value=value)
