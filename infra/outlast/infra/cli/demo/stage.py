"""Everything that a demo needs, in a throw-away folder: servers, two workers, two API replicas. Nothing stays."""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from outlast.infra.cli.parts import prepare_checkpoints
from outlast.infra.cli.process import Process, api_answers, how_it_ended
from outlast.infra.embedded import Postgres, Valkey
from outlast.infra.migrate import migrate, shipped
from outlast.shared.connections import Database, fixed
from outlast.shared.domain.errors import OutlastError
from outlast.shared.settings import Settings

_HOST = "127.0.0.1"
_READY_SECONDS = 60.0
_LOOK_SECONDS = 0.05
_LONGEST_TEMPORARY = 50  # of 103 bytes; the rest is /outlast-demo-12345678/pymp-12345678/listener-12345678
_EXAMPLE = "examples.assistant"
_BUILT_IN = "outlast.infra.cli.demo.agent"
_PACE_SECONDS = "0.02"
# What would change the demo: our settings, and those with which an agent finds a model that costs money.
_PREFIXES = ("OUTLAST_", "ASSISTANT_", "OPENAI_", "DATABRICKS_", "LANGCHAIN_", "LANGSMITH_", "CELERY_")
_NAMES = {"DATABASE_URL", "REDIS_URL", "TASK_TIMEOUT_SECONDS", "POLL_INTERVAL_SECONDS", "LOG_LEVEL"}
# It outlives a demo that is killed with -9, and only then does what the demo would have done.
_UNDERTAKER = """
cat
kill -QUIT "$1"
kill -TERM "$2"
for _ in 1 2 3 4 5 6 7 8 9 10; do kill -0 "$1" "$2" && sleep 0.2; done
rm -rf "$3" "$4"
"""


class StageError(OutlastError):
    """The demo cannot be staged."""


class Part:
    """A process of the demo, and where its own words go."""

    def __init__(self, command: Sequence[str], env: Mapping[str, str], folder: Path, name: str, url: str = "") -> None:
        self.name = name
        self.url = url
        """Of an API replica."""
        self.command = " ".join([Path(command[0]).name, *command[1:]])
        self._output = folder / f"{name.replace(' ', '-')}.log"
        self.process = Process(name, command, env, cwd=folder, output=self._output)
        self.life = asyncio.create_task(self.process.run())

    @property
    def pid(self) -> int:
        assert self.process.pid is not None, "it has been started"
        return self.process.pid

    async def ready(self) -> None:
        """Raises StageError when it ends instead."""
        becoming = asyncio.create_task(self._answers() if self.url else self.process.ready.wait())
        done, _ = await asyncio.wait({becoming, self.life}, timeout=_READY_SECONDS, return_when=asyncio.FIRST_COMPLETED)
        if becoming in done:
            return
        becoming.cancel()
        how = how_it_ended(self.life.result()) if self.life in done else f"is not ready after {_READY_SECONDS:g} s"
        said = self._output.read_text(errors="replace").splitlines()[-10:]
        raise StageError("\n  ".join([f"{self.name} {how}. Its last words:", *said]))

    async def end(self) -> None:
        """At once, with all that it has started."""
        while self.process.pid is None and not self.life.done():  # noqa: ASYNC110 — it is just being started
            await asyncio.sleep(_LOOK_SECONDS)
        self.process.kill_group()
        await asyncio.wait({self.life})

    async def _answers(self) -> None:
        port = int(self.url.rpartition(":")[2])
        while not await asyncio.to_thread(api_answers, _HOST, port):  # noqa: ASYNC110 — another process: no event
            await asyncio.sleep(_LOOK_SECONDS)


class Stage:
    """Not to be entered twice. `open` and then, whatever happened, `close`."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="outlast-demo-", dir=_temporary()))
        self.postgres = Postgres(self.folder / "postgres")
        self.valkey = Valkey(self.folder / "valkey")
        self.apis: list[Part] = []
        self.workers: list[Part] = []
        self.agent, self.is_example = _agent()
        self._starting: list[asyncio.Task[None]] = []
        self._undertaker: subprocess.Popen[bytes] | None = None
        self._ports = _free_ports(2)

    @property
    def urls(self) -> list[str]:
        return [f"http://{_HOST}:{port}" for port in self._ports]

    async def open(self) -> Database:
        """The servers, the schema, a worker and an API. Raises OutlastError and EmbeddedError."""
        servers = (self.postgres, self.valkey)
        self._starting = [asyncio.create_task(asyncio.to_thread(server.start)) for server in servers]
        await asyncio.gather(*map(asyncio.shield, self._starting))
        self._undertaker = self._watched_over()
        database = Database(fixed(self.postgres.url), schema=_default("db_schema"), application="outlast demo")
        await migrate(database, shipped())
        preparing = [prepare_checkpoints(database)] if self.is_example else []
        await asyncio.gather(self.add_api(), self.add_worker(), *preparing)
        return database

    async def add_worker(self) -> None:
        """One more; returns when it is ready."""
        worker = self._part(f"worker {len(self.workers) + 1}", "worker")
        self.workers.append(worker)
        await worker.ready()

    async def add_api(self) -> None:
        """The next replica; returns when it answers."""
        number = len(self.apis)
        api = self._part(f"api {number + 1}", "api", "--port", str(self._ports[number]), url=self.urls[number])
        self.apis.append(api)
        await api.ready()

    async def close(self) -> None:
        """End everything at once, and remove the folder. What is in it is of no use to anybody."""
        # A server that is being started cannot be stopped yet.
        await asyncio.gather(*self._starting, return_exceptions=True)
        parts = [*self.apis, *self.workers]
        await asyncio.gather(*(part.end() for part in parts))
        await asyncio.gather(asyncio.to_thread(self.postgres.stop), asyncio.to_thread(self.valkey.stop))
        for folder in (self.postgres.data.parent, self.folder):  # Postgres may have its data elsewhere when we are root
            shutil.rmtree(folder, ignore_errors=True)
        if self._undertaker is not None:
            self._undertaker.kill()
            self._undertaker.communicate()

    def _part(self, name: str, *arguments: str, url: str = "") -> Part:
        return Part([sys.executable, "-m", "outlast.infra.cli", *arguments], self._env(), self.folder, name, url)

    def _env(self) -> dict[str, str]:
        """The defaults, whatever this shell and this folder have set for other Outlasts."""
        kept = {name: value for name, value in os.environ.items() if not _is_setting(name)}
        paths = [os.getcwd()] * self.is_example + list(filter(None, [kept.get("PYTHONPATH")]))
        return {
            **kept,
            "DATABASE_URL": self.postgres.url,
            "REDIS_URL": self.valkey.url,
            "OUTLAST_AGENTS": self.agent,
            "OUTLAST_CHILDREN": "1",  # one run needs no more, and each takes time to start
            "OUTLAST_LOG_LEVEL": "warning",
            "ASSISTANT_PACE_SECONDS": _PACE_SECONDS,
            "PYTHONPATH": os.pathsep.join(paths),
            "TMPDIR": str(self.folder),  # what a killed process cannot tidy up goes with the folder
        }

    def _watched_over(self) -> subprocess.Popen[bytes]:
        pids, homes = (self.postgres.pid, self.valkey.pid), (self.postgres.data.parent, self.folder)
        return subprocess.Popen(
            ["sh", "-c", _UNDERTAKER, "outlast-demo", *map(str, (*pids, *homes))],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )


def _temporary() -> str:
    """The temporary folder, unless sockets in folders in it would have too long a name."""
    folder = tempfile.gettempdir()
    return folder if len(os.fsencode(folder)) <= _LONGEST_TEMPORARY else "/tmp"


def _agent() -> tuple[str, bool]:
    """The example of the checkout in this folder, else the built-in one."""
    is_example = Path(*_EXAMPLE.split("."), "__init__.py").is_file()
    return f"assistant={_EXAMPLE if is_example else _BUILT_IN}:agent", is_example


def _is_setting(name: str) -> bool:
    return name.upper().startswith(_PREFIXES) or name.upper() in _NAMES


def _default(field: str) -> str:
    return Settings.model_fields[field].default


def _free_ports(count: int) -> list[int]:
    """Held together until all are known, so that they differ."""
    probes = [socket.create_server((_HOST, 0)) for _ in range(count)]
    try:
        return [probe.getsockname()[1] for probe in probes]
    finally:
        for probe in probes:
            probe.close()
