"""What all replicas say alike, since they read it from the database: the queues, and what the workers report."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from outlast.shared.domain.measures import DISTRIBUTIONS, Distribution, Sample
from outlast.shared.domain.runs import RunStatus
from outlast.shared.store.overview import Overview, WorkerState

from .families import gauge


@dataclass(frozen=True, eq=False)
class SystemState(Collector):
    """None when it cannot be read."""

    overview: Overview | None

    def collect(self) -> Iterator[Metric]:
        yield gauge("outlast_database_up", "1 when the numbers below could be read", self.overview is not None)
        if self.overview is not None:
            yield from _queues(self.overview)
            yield from _workers([worker for worker in self.overview.workers if worker.alive])


def _queues(overview: Overview) -> Iterator[Metric]:
    yield gauge("outlast_queued_runs", "Runs that wait, in all queues; an estimate when many", overview.queued)
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
    yield gauge(
        "outlast_notification_queue_ratio", "How full the server's queue of notifications is",
        overview.notification_queue,
    )  # fmt: skip


# By worker, not summed: a sum falls when a worker ends, which a monitor takes for a counter that began anew.
_COUNTERS = {
    "runs_claimed": "Runs claimed; each claim is an attempt",
    "runs_handed_back": "Runs put back into the queue by the worker that had them",
    "runs_retried": "Runs put back to be tried again after a transient error",
    "runs_taken_back": "Runs the worker's sweep took from dead workers",
    "attempts_without_end": "Attempts that ended without ending their run",
    "fenced_writes": "Writes refused because the run was another's",
    "deadline_kills": "Runs ended because they took longer than they may",
    "runs_ended_by_sweep": "Runs the worker's sweep ended: overdue or cancelled, and nobody else did",
    "stalls": "Child processes killed because their loop stood still",
    "leaked_threads": "Attempts that left a thread at work, whose child is replaced",
    "leaked_tasks": "Attempts that left a task at work, whose child is replaced",
    "child_deaths": "Child processes that died",
    "events": "Events of attempts that have ended",
    "pool_waits": "Work that had to wait for a connection",
    "pool_errors": "Work that got no connection in time",
}


def _workers(workers: Sequence[WorkerState]) -> Iterator[Metric]:
    yield gauge("outlast_workers", "Workers that are alive", len(workers))
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
    yield _waited(workers)
    yield _finished(workers)
    for distribution in DISTRIBUTIONS:
        yield _histogram(distribution, workers)


def _waited(workers: Sequence[WorkerState]) -> Metric:
    waited = CounterMetricFamily(
        "outlast_worker_pool_wait_seconds", "How long work waited for connections", labels=["worker"]
    )
    for worker in workers:
        waited.add_metric([worker.owner], worker.counters.get("pool_wait_ms", 0) / 1000)
    return waited


def _finished(workers: Sequence[WorkerState]) -> Metric:
    finished = CounterMetricFamily(
        "outlast_worker_runs_finished", "Runs ended, by their status", labels=["worker", "status"]
    )
    for worker in workers:
        for status in RunStatus:
            if status.terminal:
                finished.add_metric([worker.owner, status], worker.counters.get(f"runs_{status}", 0))
    return finished


def _histogram(distribution: Distribution, workers: Sequence[WorkerState]) -> Metric:
    family = HistogramMetricFamily(
        f"outlast_worker_{distribution.name}", distribution.meaning, labels=["worker", *distribution.labels]
    )
    for worker in workers:
        for sample in worker.samples.get(distribution.name, ()):
            if len(sample.counts) == len(distribution.buckets) + 1:  # else it is of another release
                family.add_metric([worker.owner, *sample.labels], _cumulative(distribution, sample), sample.sum)
    return family


def _cumulative(distribution: Distribution, sample: Sample) -> Sequence[tuple[str, float]]:
    bounds = [*map(str, map(float, distribution.buckets)), "+Inf"]
    return list(zip(bounds, accumulate(sample.counts), strict=True))
