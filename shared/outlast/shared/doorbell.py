"""The doorbell: the Celery message "there is work in this queue". Losing or doubling one is harmless.

Workers look for work by themselves once a beat, so a bell only saves that wait. It is rung from a thread of its own:
publishing blocks, and a broker that is down must cost a request nothing.
"""

from __future__ import annotations

import threading
from urllib.parse import parse_qs, urlsplit

import structlog
from celery import Celery
from kombu import Connection as BrokerConnection, Producer

from .domain.ids import response_id
from .domain.runs import Submission

log = structlog.get_logger()

TASK = "outlast.doorbell"
_BELLS_A_ROUND = 4  # of one queue: enough to wake several workers
_ROUND_SECONDS = 0.01
_RETRY_SECONDS = 1.0
_STOP_SECONDS = 1.5


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
    """Rings workers from a thread of its own.

    A bell wakes a worker, which then takes all it can: a few bells at a time say as much as one for every run. They
    also leave the interpreter to the requests, which the publishing thread would otherwise hold up.
    """

    def __init__(self, redis_url: str, schema: str) -> None:
        self._app = celery_app(redis_url, schema)
        self._schema = schema
        self._waiting: dict[str, list[Submission]] = {}
        self._changed = threading.Condition()
        self._stopping = False
        self._thread = threading.Thread(target=self._publish, name="doorbell", daemon=True)
        self.lost = 0

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Ring what is waiting, within a second or so, and end."""
        with self._changed:
            self._stopping = True
            self._changed.notify()
        self._thread.join(timeout=_STOP_SECONDS)

    def ring(self, submission: Submission) -> None:
        """Never blocks and never fails: a bell that cannot be rung is one that workers will not need for long."""
        with self._changed:
            bells = self._waiting.setdefault(submission.queue, [])
            if len(bells) < _BELLS_A_ROUND:
                bells.append(submission)
            self._changed.notify()

    def _publish(self) -> None:
        while not self._stopping:
            try:
                with self._app.connection_for_write() as connection:
                    self._publish_over(connection)
            except Exception as error:  # noqa: BLE001 — whatever it raises, the next try is soon
                self.lost += 1
                log.warning("doorbell.lost", error=type(error).__name__, lost=self.lost)
                self._pause(_RETRY_SECONDS)

    def _publish_over(self, connection: BrokerConnection) -> None:
        producer = Producer(connection, auto_declare=False)
        while bells := self._next_round():
            for submission in bells:
                self._app.send_task(
                    TASK,
                    args=[submission.queue],
                    kwargs={"run": response_id(submission.run_id)},  # for tracing only: a bell names a queue
                    queue=broker_queue(self._schema, submission.queue),
                    producer=producer,
                    ignore_result=True,
                    retry=False,
                )
            self._pause(_ROUND_SECONDS)

    def _next_round(self) -> list[Submission]:
        """The bells that wait; waits for some. Empty when it is time to stop."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._stopping)
            waiting, self._waiting = self._waiting, {}
        return [submission for bells in waiting.values() for submission in bells]

    def _pause(self, seconds: float) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self._stopping, seconds)
