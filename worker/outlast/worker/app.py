"""The Celery application of a worker and its start. Its only task is the doorbell, which the pool answers itself."""

from __future__ import annotations

import asyncio
import logging
import math
import signal
import time
import warnings
from collections.abc import Callable
from types import FrameType
from typing import Any

import structlog
from celery import signals
from celery.apps.worker import Worker
from celery.worker import state
from celery.worker.consumer import Consumer
from celery.worker.state import maybe_shutdown

from outlast.shared import broker
from outlast.shared.connections import Database
from outlast.shared.doorbell import TASK, broker_queue, celery_app
from outlast.shared.settings import Settings, SettingsError

from .pool.pool import RunPool

log = structlog.get_logger()

_REFUSED_SECONDS = 1.0
_TELL_AGAIN_SECONDS = 60.0


def run_worker(
    settings: Settings,
    *,
    on_ready: Callable[[], None] = lambda: None,
    on_refusal: Callable[[str], None] = lambda _: None,
) -> int:
    """Consume doorbells until SIGTERM or SIGINT. Returns the exit code. Raises what keeps the worker from starting.

    ``on_refusal`` is told what keeps the agents from being loaded: another try would end in the same way.
    """
    if not settings.agents:
        raise SettingsError("OUTLAST_AGENTS is not set: name=module:attribute, the first is the default")
    Database.of(settings, application="outlast worker")  # what is wrong with its address is said before anything starts
    asyncio.run(broker.check(settings.required_redis_url(), settings.db_schema))
    app = celery_app(settings.required_redis_url(), settings.db_schema)
    app.task(name=TASK)(_answered_by_the_pool)
    signals.setup_logging.connect(_keep_ours, weak=False)

    def ready(**_: Any) -> None:
        on_ready()

    signals.worker_ready.connect(ready, weak=False)
    logging.getLogger("celery.worker.request").addFilter(_unacknowledged_is_no_loss)
    # Celery warns root of pickled messages; ours are JSON and name a queue.
    warnings.filterwarnings("ignore", message=".*superuser privileges.*")
    worker = QuietWorker(
        app=app,
        pool_cls=RunPool.serving(settings, on_refusal),
        consumer_cls=PatientConsumer,
        concurrency=settings.worker_children * settings.concurrency,
        queues=[broker_queue(settings.db_schema, name) for name in settings.served_queues],
        without_gossip=True,
        without_mingle=True,
        without_heartbeat=True,
        quiet=True,
        task_events=False,
    )
    worker.start()
    return worker.exitcode or 0


class QuietWorker(Worker):
    """Celery's worker with one way to stop: hand back what cannot be finished in time, and end. No announcements.

    A second signal does not wait for the time: everything is handed back now.
    """

    def install_platform_tweaks(self, worker: Any) -> None:
        def stop(_number: int, _frame: FrameType | None) -> None:
            pool = getattr(worker, "pool", None)
            # Celery's consumer looks at it each time round; the value is the exit code.
            state.should_stop = pool.exit_code if isinstance(pool, RunPool) else 0
            if isinstance(pool, RunPool):
                pool.drain()  # now: the consumer may be waiting for a broker that is away

        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, stop)


class PatientConsumer(Consumer):
    """Celery's consumer, which finds a broker that is back within two seconds rather than thirty, and says less."""

    connection_errors: tuple[type[BaseException], ...]
    _told_at = -math.inf

    def ensure_connected(self, conn: Any) -> Any:
        said = False

        def say(error: Exception, _seconds: float) -> None:
            nonlocal said
            if not said:
                log.warning("broker.waiting", error=type(error).__name__)
            said = True

        conn.ensure_connection(say, interval_start=0.5, interval_step=0.5, interval_max=2, callback=maybe_shutdown)
        if said:
            log.info("broker.back")
        return conn

    def on_connection_error_before_connected(self, exc: Exception) -> None:
        self._bear(exc)

    def on_connection_error_after_connected(self, exc: Exception) -> None:
        if not isinstance(exc, self.connection_errors):
            self._bear(exc)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of what Celery 6 will do with tasks: there are none
            super().on_connection_error_after_connected(exc)

    def _bear(self, error: Exception) -> None:
        """A broker that answers with errors is asked again after a pause; the beat looks for work meanwhile."""
        now = time.monotonic()
        if now - self._told_at > _TELL_AGAIN_SECONDS:
            unfit = broker.unfitness(error)
            log.warning("broker.refuses", error=type(error).__name__, reason=unfit and unfit.message)
            self._told_at = now
        time.sleep(_REFUSED_SECONDS)


def _keep_ours(**_: Any) -> None:
    """Logs are configured; a receiver of this signal keeps Celery from doing it again."""


def _unacknowledged_is_no_loss(record: logging.LogRecord) -> bool:
    """Celery calls a lost connection critical here. The message is delivered again, and a second bell is harmless."""
    if str(record.msg).startswith("Couldn't ack"):
        record.levelno, record.levelname = logging.WARNING, "WARNING"
    return True


def _answered_by_the_pool(queue: str, run: str | None = None) -> None:
    raise AssertionError("the pool answers doorbells; no task runs")
