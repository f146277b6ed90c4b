"""The doorbell: the Celery message "there is work in this queue". Losing or doubling one is harmless.

Workers look for work by themselves once a beat, so a bell only saves that wait. It is rung from a thread of its own:
publishing blocks, and a broker that is down must cost a request nothing.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit
from uuid import UUID

import structlog
from celery import Celery
from kombu import Connection as BrokerConnection, Producer

from .broker import key_prefix, unfitness
from .domain.ids import response_id

log = structlog.get_logger()

TASK = "outlast.doorbell"
_BELLS_A_ROUND = 4  # of one queue: enough to wake several workers
_ROUND_SECONDS = 0.01
_LONGEST_ROUND_SECONDS = 0.05
_SHARE = 0.05  # of the interpreter's time: 0.5 ms a bell
_RETRY_SECONDS = 1.0
_STOP_SECONDS = 1.5


@dataclass(frozen=True, slots=True)
class Bell:
    """There is work in this queue. The rest is for tracing."""

    queue: str
    run_id: UUID | None = None
    traceparent: str | None = None


def broker_queue(schema: str, name: str) -> str:
    return f"{schema}.{name}"


def broker_url(redis_url: str) -> str:
    """The address in kombu's form: it writes Unix sockets and databases differently from redis-py."""
    parts = urlsplit(redis_url)
    options = dict(parse_qsl(parts.query))
    database = options.pop("db", None)
    if parts.scheme == "unix":
        user = parts.netloc.rpartition("@")[0]
        return f"redis+socket://{user}{user and '@'}{parts.path}?virtual_host={database or 0}"
    if parts.scheme == "rediss":
        options.setdefault("ssl_cert_reqs", "required")  # kombu would trust any certificate
    path = parts.path if database is None else f"/{database}"
    return urlunsplit(parts._replace(path=path, query=urlencode(options)))


def celery_app(redis_url: str, schema: str) -> Celery:
    """Celery as Outlast uses it: to wake workers. No results, retries, ETA or countdown; Postgres owns the run."""
    app = Celery("outlast", broker=broker_url(redis_url), set_as_current=False)
    app.conf.update(
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,
        broker_channel_error_retry=True,  # answers that are errors end no worker: it looks for work by itself
        broker_transport_options={
            "global_keyprefix": key_prefix(schema),
            "socket_connect_timeout": 2,
            "socket_timeout": 3,  # more than a worker listens at a time; a silent broker holds its end up for so long
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


def ring_once(redis_url: str, schema: str, queues: Iterable[str]) -> bool:
    """Ring one bell in each of these queues, from a process that has no doorbell of its own; waits for the broker.

    False: the broker is away, and workers look for work by themselves.
    """
    app = celery_app(redis_url, schema)
    try:
        with app.connection_for_write() as connection:
            producer = Producer(connection, auto_declare=False)
            for queue in queues:
                _ring(app, schema, producer, Bell(queue))
    except Exception:  # noqa: BLE001 — whatever it raises, a bell is only a hint
        return False
    return True


def _ring(app: Celery, schema: str, producer: Producer, bell: Bell) -> None:
    app.send_task(
        TASK,
        args=[bell.queue],
        kwargs={"run": response_id(bell.run_id)} if bell.run_id else {},
        headers={"traceparent": bell.traceparent} if bell.traceparent else None,
        queue=broker_queue(schema, bell.queue),
        producer=producer,
        ignore_result=True,
        retry=False,
    )


class Doorbell:
    """Rings workers from a thread of its own.

    A bell wakes a worker, which then takes all it can: a few bells at a time say as much as one for every run. They
    also leave the interpreter to the requests, which the publishing thread would otherwise hold up.
    """

    def __init__(self, redis_url: str, schema: str) -> None:
        self._app = celery_app(redis_url, schema)
        self._schema = schema
        self._waiting: dict[str, list[Bell]] = {}
        self._perhaps_silent: set[str] = set()
        self._guard = threading.Lock()
        self._rung = threading.Event()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._publish, name="doorbell", daemon=True)
        self.lost = 0

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Ring what is waiting, within a second or so, and end."""
        self._stopping.set()
        self._rung.set()
        if self._thread.is_alive():
            self._thread.join(timeout=_STOP_SECONDS)

    def ring(self, queue: str, run_id: UUID | None = None, traceparent: str | None = None) -> None:
        """Say that there is work in a queue; the run and its trace are named for tracing only.

        Never blocks and never fails: a bell that cannot be rung is one that workers will not need for long.
        """
        with self._guard:
            bells = self._waiting.setdefault(queue, [])
            if len(bells) < _BELLS_A_ROUND:
                bells.append(Bell(queue, run_id, traceparent))
                self._rung.set()

    def ring_if_silent(self, queue: str) -> None:
        """Say that work has been waiting in a queue: ring unless a bell is on its way already."""
        with self._guard:
            self._perhaps_silent.add(queue)
            self._rung.set()

    def _publish(self) -> None:
        while not self._stopping.is_set():
            try:
                with self._app.connection_for_write() as connection:
                    _ = connection.transport  # half of Celery is imported when it is needed: not at the first bell
                    self._publish_over(connection)
            except Exception as error:  # noqa: BLE001 — whatever it raises, the next try is soon
                self.lost += 1
                unfit = unfitness(error)
                log.warning("doorbell.lost", error=type(error).__name__, lost=self.lost, reason=unfit and unfit.message)
                self._stopping.wait(_RETRY_SECONDS)

    def _publish_over(self, connection: BrokerConnection) -> None:
        producer = Producer(connection, auto_declare=False)
        while (bells := self._next_round(connection)) or not self._stopping.is_set():
            began = time.thread_time()
            for bell in bells:
                _ring(self._app, self._schema, producer, bell)
            # What it takes from the requests is bounded, however many come; but a slow first bell delays no second one.
            share = (time.thread_time() - began) / _SHARE
            self._stopping.wait(min(max(share, _ROUND_SECONDS), _LONGEST_ROUND_SECONDS))

    def _next_round(self, connection: BrokerConnection) -> list[Bell]:
        """The bells to ring now; waits for some. None: those that wait need not be rung, or it is time to stop."""
        self._rung.wait()
        with self._guard:
            waiting, self._waiting = self._waiting, {}
            silent, self._perhaps_silent = self._perhaps_silent - waiting.keys(), set()
            if not self._stopping.is_set():
                self._rung.clear()
        bells = [bell for rung in waiting.values() for bell in rung]
        return bells + [Bell(queue) for queue in silent if not self._holds_bells(connection, queue)]

    def _holds_bells(self, connection: BrokerConnection, queue: str) -> bool:
        channel: Any = connection.default_channel
        # Not passive: over Redis kombu then asks for a key without our prefix, and finds no queue.
        return channel.queue_declare(broker_queue(self._schema, queue)).message_count > 0
