"""The Celery application of a worker and its start. Its only task is the doorbell, which the pool answers itself."""

from __future__ import annotations

import warnings
from collections.abc import Callable

from celery import signals
from outlast.shared.doorbell import TASK, broker_queue, celery_app
from outlast.shared.settings import Settings, SettingsError

from .pool import RunPool


def run_worker(settings: Settings, *, on_ready: Callable[[], None] = lambda: None) -> int:
    """Consume doorbells until SIGTERM or SIGINT. Returns the exit code. Raises what keeps the worker from starting."""
    if not settings.agents:
        raise SettingsError("OUTLAST_AGENTS is not set: name=module:attribute, the first is the default")
    settings.required_database_url()
    app = celery_app(settings.required_redis_url(), settings.db_schema)
    app.settings = settings
    app.task(name=TASK)(_answered_by_the_pool)
    signals.worker_ready.connect(lambda **_: on_ready(), weak=False)
    # Celery warns root of pickled messages; ours are JSON and name a queue.
    warnings.filterwarnings("ignore", message=".*superuser privileges.*")
    worker = app.Worker(
        pool_cls=RunPool,
        concurrency=settings.concurrency,
        queues=[broker_queue(settings.db_schema, name) for name in settings.queues],
        without_gossip=True,
        without_mingle=True,
        without_heartbeat=True,
        quiet=True,
        task_events=False,
    )
    worker.start()
    return worker.exitcode or 0


def _answered_by_the_pool(queue: str, run: str | None = None) -> None:
    raise AssertionError("the pool answers doorbells; no task runs")
