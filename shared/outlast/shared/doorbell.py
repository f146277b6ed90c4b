"""The doorbell: the Celery message "there is work in this queue". Losing or doubling one is harmless.

Workers look for work by themselves once a beat, so a bell only saves that wait. It is rung from a thread of its own:
publishing blocks, and a broker that is down must cost a request nothing.
"""

from __future__ import annotations

import queue
import threading
from contextlib import suppress
from urllib.parse import parse_qs, urlsplit

import structlog
from celery import Celery
from kombu import Connection as BrokerConnection, Producer

from .domain.ids import response_id
from .domain.runs import Submission

log = structlog.get_logger()

TASK = "outlast.doorbell"
_BACKLOG = 10_000
_RETRY_SECONDS = 1.0


def broker_queue(schema: str, name: str) -> str:
    return f"{schema}.{name}"


def broker_url(redis_url: str) -> str:
    """The address in kombu's form: it writes Unix sockets differently from redis-py."""
    parts = urlsplit(redis_url)
    if parts.scheme != "unix":
        return redis_url
    database = parse_qs(parts.query).get("db", ["0"])[0]
    return f"redis+socket://{parts.path}?virtual_host={database}"


def celery_app(redis_url: str, schema: str) -> Celery:
    """Celery as Outlast uses it: to wake workers. No results, retries, ETA or countdown; Postgres owns the run."""
    app = Celery("outlast", broker=broker_url(redis_url), set_as_current=False)
    app.conf.update(
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,
        broker_transport_options={
            "global_keyprefix": f"{schema}:",  # two Outlasts may share one Redis
            "socket_connect_timeout": 2,
            "socket_timeout": 5,
            "health_check_interval": 10,
        },
        task_acks_late=False,
        task_ignore_result=True,
        task_default_queue=broker_queue(schema, "default"),
        worker_cancel_long_running_tasks_on_connection_loss=False,
        worker_disable_prefetch=True,
        worker_prefetch_multiplier=1,
        worker_hijack_root_logger=False,
        worker_redirect_stdouts=False,
        worker_enable_remote_control=False,
    )
    return app


class Doorbell:
    """Rings workers from a thread of its own."""

    def __init__(self, redis_url: str, schema: str) -> None:
        self._app = celery_app(redis_url, schema)
        self._schema = schema
        self._bells: queue.Queue[Submission | None] = queue.Queue(_BACKLOG)
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._publish, name="doorbell", daemon=True)
        self.lost = 0

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Ring what is waiting, within a second or so, and end."""
        self._stopping.set()
        with suppress(queue.Full):
            self._bells.put_nowait(None)
        self._thread.join(timeout=1.5)

    def ring(self, submission: Submission) -> None:
        """Never blocks and never fails: a bell that cannot be rung is one that workers will not need for long."""
        try:
            self._bells.put_nowait(submission)
        except queue.Full:
            self.lost += 1

    def _publish(self) -> None:
        while not self._stopping.is_set():
            try:
                with self._app.connection_for_write() as connection:
                    self._publish_over(connection)
            except Exception as error:  # noqa: BLE001 — whatever it raises, the next try is soon
                self.lost += 1
                log.warning("doorbell.lost", error=type(error).__name__, lost=self.lost)
                self._stopping.wait(_RETRY_SECONDS)

    def _publish_over(self, connection: BrokerConnection) -> None:
        producer = Producer(connection, auto_declare=False)
        while (submission := self._bells.get()) is not None:
            self._app.send_task(
                TASK,
                args=[submission.queue],
                kwargs={"run": response_id(submission.run_id)},  # for tracing only: a bell names a queue
                queue=broker_queue(self._schema, submission.queue),
                producer=producer,
                ignore_result=True,
                retry=False,
            )
