"""What one replica counts by itself or is in the middle of."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from outlast.api.tail import Tail
from outlast.shared.connections import Database
from outlast.shared.doorbell import Doorbell
from outlast.shared.sweep import Sweep

from .families import counter, gauge


@dataclass(frozen=True, eq=False)
class ReplicaState(Collector):
    database: Database
    tail: Tail
    doorbell: Doorbell
    sweep: Sweep

    def collect(self) -> Iterator[Metric]:
        pool = self.database.pool_stats()
        yield gauge("outlast_streams", "Streams open, and requests that wait for a run", self.tail.streams)
        yield counter("outlast_events_sent", "Events given to streams", self.tail.events_taken)
        yield gauge("outlast_listening", "1 while LISTEN works; events are polled for otherwise", self.tail.listening)
        yield counter("outlast_doorbells_lost", "Bells that could not be rung", self.doorbell.lost)
        yield counter(
            "outlast_runs_taken_back", "Runs this replica's sweep took from dead workers", self.sweep.taken_back
        )
        yield gauge("outlast_pool_connections", "Connections in the pool", pool.get("pool_size", 0))
        yield gauge("outlast_pool_idle_connections", "Those that are free", pool.get("pool_available", 0))
        yield gauge("outlast_pool_waiting", "Work that waits for a connection now", pool.get("requests_waiting", 0))
        yield counter("outlast_pool_waits", "Work that had to wait for a connection", pool.get("requests_queued", 0))
        yield counter("outlast_pool_wait_seconds", "How long it waited in all", pool.get("requests_wait_ms", 0) / 1000)
        yield counter("outlast_pool_errors", "Work that got no connection in time", pool.get("requests_errors", 0))
