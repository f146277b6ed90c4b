"""``outlast serve``: an API and a worker in one container, for hosts that give an app one command and one port.

The database is elsewhere and outlives the container. The broker may be the container's own: bells are hints.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import tempfile
import time
from pathlib import Path

import structlog

from outlast.infra.embedded import EmbeddedError, Valkey
from outlast.infra.migrate import migrate, shipped
from outlast.shared import logs, settings
from outlast.shared.connections import Database
from outlast.shared.domain.errors import Unavailable
from outlast.shared.settings import Settings, SettingsError

from .parts import prepare_checkpoints, refuse_strangers, refuse_taken
from .supervisor import Supervisor, until_asked_to_stop
from .terminal import echo

log = structlog.get_logger()

HOST = "0.0.0.0"
DRAIN_SECONDS = 8.0
"""A host such as Databricks Apps kills what is left 15 s after SIGTERM: drain, hand back and end have to fit in."""
_HAND_BACK_SECONDS = 4.0
_API_AFTER_DRAIN_SECONDS = 0.5
_API_SECONDS = 5.0
_TRIES = 3
_DATABASE_SECONDS = 60.0
_DATABASE_PAUSE_SECONDS = 1.0


def run(*, port: int) -> int:
    """Returns the exit code: 0 after SIGTERM. Raises SettingsError, CannotStart and what the database says."""
    config = settings.load()
    database = Database.of(config, application="outlast serve")
    if not config.agents:
        raise SettingsError("OUTLAST_AGENTS is not set: name=module:attribute, importable from the app's folder")
    refuse_strangers(config, HOST)
    refuse_taken(HOST, port)
    try:
        asyncio.run(Serve(config, database, port).run())
    except EmbeddedError as error:
        raise SettingsError(str(error)) from None
    return 0


def _folder() -> tempfile.TemporaryDirectory[str]:
    try:
        return tempfile.TemporaryDirectory(prefix="outlast-serve-")
    except OSError as error:
        raise SettingsError(f"There is no folder for temporary files: {error}. TMPDIR may name one") from None


class Serve:
    def __init__(self, config: Settings, database: Database, port: int) -> None:
        self._settings = config
        self._database = database
        self._port = port
        self._began = time.monotonic()
        self._supervisor = Supervisor(tries=_TRIES, one_stream=True)
        self._env = dict(os.environ)
        self._drain_seconds = config.drain_seconds if "drain_seconds" in config.model_fields_set else DRAIN_SECONDS
        self._env["OUTLAST_DRAIN_SECONDS"] = str(self._drain_seconds)
        if config.token_key is None:  # nobody else needs it: users' tokens stay in this container
            self._env["OUTLAST_TOKEN_KEY"] = secrets.token_urlsafe(32)

    async def run(self) -> None:
        with _folder() as folder:
            logs.configure(self._settings, part="serve")
            try:
                await until_asked_to_stop(self._serve(Path(folder)), asked_again=self._supervisor.hurry)
            finally:
                await self._supervisor.stop_servers()

    async def _serve(self, folder: Path) -> None:
        broker = "REDIS_URL"
        if self._settings.redis_url is None:
            valkey = Valkey(folder, persistent=False)
            await self._supervisor.start_servers(valkey)
            self._env["REDIS_URL"] = valkey.url
            broker = f"Valkey {valkey.version} of its own"
        await self._migrate()
        async with self._supervisor.watching():
            try:
                api = self._supervisor.start("api", "--host", HOST, "--port", str(self._port), env=self._env)
                await prepare_checkpoints(self._database)  # the API does not need them
                worker = self._supervisor.start("worker", env=self._env)
                await asyncio.gather(self._supervisor.api_ready(api, "127.0.0.1", self._port), worker.ready.wait())
                seconds = time.monotonic() - self._began
                echo(f"ready     http://{HOST}:{self._port}   ({seconds:.1f} s)   broker: {broker}")
                await asyncio.Event().wait()
            finally:
                await self._stop()  # while they are watched: a part that nobody watches ends at once

    async def _migrate(self) -> None:
        """Waits for a database that starts too, or wakes up."""
        deadline, told = time.monotonic() + _DATABASE_SECONDS, False
        while True:
            try:
                await migrate(self._database, shipped())
                return
            except Unavailable as error:
                if time.monotonic() > deadline:
                    raise
                if not told:
                    log.warning("database.waiting", error=error.message)
                told = True
                await asyncio.sleep(_DATABASE_PAUSE_SECONDS)

    async def _stop(self) -> None:
        """The API stays while runs end, for those who follow them; then it goes, too."""
        api, *worker = self._supervisor.processes
        stopping = asyncio.gather(*(each.stop(self._drain_seconds + _HAND_BACK_SECONDS) for each in worker))
        await asyncio.wait({stopping}, timeout=self._drain_seconds + _API_AFTER_DRAIN_SECONDS)
        await api.stop(_API_SECONDS)
        await stopping
        echo("stopped")
