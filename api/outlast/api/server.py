"""Running a replica: uvicorn, with what long streams need of it."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import resource
import socket
import threading
import time
from collections.abc import Generator
from contextlib import contextmanager
from types import FrameType

import structlog
import uvicorn

from outlast.shared import broker, fitness, tracing
from outlast.shared.connections import Database
from outlast.shared.domain.addresses import is_loopback
from outlast.shared.domain.errors import Unavailable
from outlast.shared.settings import Settings
from outlast.shared.store import schema

from .app import create_app
from .bounded_http import BoundedHttp

log = structlog.get_logger()

_WANTED_FILES = 65_536
_GRACE_SECONDS = 1.5  # for answers on their way; streams and those who wait for a run are told at once
_TRACES_SECONDS = 1.0  # for spans that are not sent yet
_EXIT_SECONDS = 4.5  # whatever hangs then: all that matters is in the database
_YOUNG_OBJECTS = 5000  # between two collections: those of a few dozen requests
_DATABASE_SECONDS = 8.0
_DATABASE_PAUSE_SECONDS = 1.0


class Server(uvicorn.Server):
    """Ends in time. Streams are aborted before it waits for connections: they would last as long as their runs."""

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        services = getattr(self.config.app.state, "services", None)  # type: ignore[union-attr]
        if services is not None:
            services.tail.cut_all()
        await super().shutdown(sockets)

    @contextmanager
    def capture_signals(self) -> Generator[None]:
        """Whoever asks for the end gets it: that is no failure, and the exit code is 0."""
        with super().capture_signals():
            try:
                yield
            finally:
                self._captured_signals.clear()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """The second time it is meant at once."""
        if self.should_exit:
            os._exit(0)
        super().handle_exit(sig, frame)
        overdue = threading.Timer(_EXIT_SECONDS, os._exit, [0])
        overdue.daemon = True
        overdue.start()


def serve(settings: Settings, *, host: str, port: int) -> None:
    """Serve until SIGTERM or SIGINT. Raises Unavailable, Unfit or SchemaMismatch when the database is not fit.

    Raises BrokerUnfit when the broker is not."""
    settings = asyncio.run(_fitting(settings))
    _raise_file_limit()
    logging.getLogger("uvicorn.error").addFilter(_not_an_aborted_stream)
    config = uvicorn.Config(
        create_app(settings, on_loopback=is_loopback(host)), host=host, port=port, log_config=None, access_log=False,
        timeout_graceful_shutdown=_GRACE_SECONDS,  # type: ignore[arg-type] — it takes any number
        timeout_keep_alive=75, lifespan="on", http=BoundedHttp,
    )  # fmt: skip
    config.load()
    _spare_collector()
    Server(config).run()
    tracing.stop(_TRACES_SECONDS)


def _spare_collector() -> None:
    """What is imported stays: looking through it for garbage again and again held up all requests, 75 ms each time."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(_YOUNG_OBJECTS)


async def _fitting(settings: Settings) -> Settings:
    """The settings as the database allows. Before the server starts, whose own words for a failure are a traceback.

    Waits a little for a database that is starting too, and begins again when it goes away. Raises BrokerUnfit, too.
    """
    database = Database.of(settings, application="outlast api start")
    await broker.check(settings.required_redis_url(), settings.db_schema)
    deadline = time.monotonic() + _DATABASE_SECONDS
    while True:
        try:
            return await _examined(settings, database)
        except Unavailable as error:
            if time.monotonic() > deadline:
                raise
            log.warning("database.waiting", error=error.message)
            await asyncio.sleep(_DATABASE_PAUSE_SECONDS)


async def _examined(settings: Settings, database: Database) -> Settings:
    await fitness.check_sessions(database)
    connection = database.dedicated()
    try:
        await connection.run(schema.check)
    finally:
        await connection.close()
    return await fitness.with_a_tail_that_works(settings, database)


def _raise_file_limit() -> None:
    """Every stream is an open file; the usual limit of 1,024 is for people who have not been asked."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _WANTED_FILES if hard == resource.RLIM_INFINITY else min(_WANTED_FILES, hard)
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    except (ValueError, OSError) as error:  # macOS caps it elsewhere
        log.warning("files.limit_kept", soft=soft, error=str(error))


def _not_an_aborted_stream(record: logging.LogRecord) -> bool:
    """An abort is what an unfinished answer means here; uvicorn calls it an error of the application."""
    return "without completing response" not in record.getMessage()
