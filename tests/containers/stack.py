"""The services of docker-compose.yml as processes: what is started, with what, as whom and in what order is read there.

In their place: Postgres and Valkey are the embedded ones (Postgres without pgvector), a replica has an address of
127.0.0.0/8 instead of its own, and a name server answers for the engine's.
"""

from __future__ import annotations

import itertools
import os
import re
import secrets
import shutil
import signal
import subprocess
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
from psycopg.sql import SQL, Identifier, Literal

from outlast.infra.embedded import Postgres, Valkey
from tests.containers.box import Box
from tests.containers.images import Refused
from tests.containers.names import NameServer
from tests.containers.paths import Paths
from tests.support.deployment import compose
from tests.support.deployment.dockerfile import Dockerfile, Image
from tests.support.processes import descendants, free_port
from tests.support.waiting import until_sync

_READY_SECONDS = 90


@dataclass
class Replica:
    """One container of a service."""

    name: str
    service: compose.Service
    image: Image
    box: Box
    env: dict[str, str]
    cwd: Path
    place: Callable[[str], str]
    """Its addresses and paths, as they are here."""
    log: Path
    host: str
    port: int
    process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        command = [
            *self.service.get("entrypoint", self.image.entrypoint),
            *self.service.get("command", self.image.command),
        ]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                self.box.command([self.place(word) for word in command]),
                env=self.env, cwd=self.cwd, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip

    def run(self, command: list[str]) -> subprocess.CompletedProcess[str]:
        """Another command in the same container, as a health check is."""
        placed = self.box.command([self.place(word) for word in command])
        return subprocess.run(placed, env=self.env, cwd=self.cwd, capture_output=True, text=True, check=False)

    def is_healthy(self) -> bool:
        if self.alive.poll() is not None:
            raise Refused(f"{self.name} ended with {self.alive.returncode}:\n{self.said}")
        if self.image.healthcheck is None:
            raise Refused(f"{self.name} has no health check")
        return self.run(self.image.healthcheck).returncode == 0

    @property
    def alive(self) -> subprocess.Popen[bytes]:
        if self.process is None:
            raise Refused(f"{self.name} was not started")
        return self.process

    @property
    def said(self) -> str:
        return self.log.read_text(errors="replace")[-4000:]

    def kill(self) -> None:
        """As an engine does it: everything in the container ends at once."""
        with suppress(ProcessLookupError, FileNotFoundError):
            for pid in [self.alive.pid, *descendants(self.alive.pid)]:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        self.alive.wait()

    def ask_to_stop(self) -> None:
        self.alive.send_signal(getattr(signal, self.image.stop_signal))

    def memory(self) -> int:
        """Bytes, what is shared counted in part."""
        total = 0
        for pid in [self.alive.pid, *descendants(self.alive.pid)]:
            with suppress(FileNotFoundError, ProcessLookupError):
                total += (
                    int(re.findall(r"^Pss:\s+(\d+)", Path(f"/proc/{pid}/smaps_rollup").read_text(), re.M)[0]) * 1024
                )
        return total


class Stack:
    def __init__(
        self, text: str, dockerfile: Dockerfile, images: dict[str, Path], root: Path, work: Path, *, isolated: bool
    ) -> None:
        self._root, self._work, self._isolated = root, work, isolated
        self._dockerfile, self._images = dockerfile, images
        self.services: dict[str, compose.Service] = compose.read(text)["services"]
        self.replicas: dict[str, list[Replica]] = {}
        self._secrets = work / "password"
        self._postgres = Postgres(work / "p", settings={"fsync": "off", **self._settings_of_postgres()})
        self._valkey = Valkey(work / "v")
        self.names = NameServer(lambda name: [replica.host for replica in self.replicas.get(name, [])])
        self.api_port = free_port()

    def start(self, name: str) -> None:
        """The service, after all it depends on is as it asks for."""
        service = self.services[name]
        for needed, how in service.get("depends_on", {}).items():
            if needed not in self.replicas:
                self.start(needed)
            self._await(needed, how["condition"])
        self.replicas[name] = []
        match name:
            case "password":
                self._make_password(service)
            case "postgres":
                self._start_postgres()
            case "valkey":
                self._valkey.start()
            case _:
                count = service.get("deploy", {}).get("replicas", 1)
                self.replicas[name] = [self._replica(name, service, number) for number in range(1, count + 1)]
                for replica in self.replicas[name]:
                    replica.start()

    def _await(self, name: str, condition: str) -> None:
        for replica in self.replicas[name]:
            if condition == "service_completed_successfully":
                if replica.alive.wait(_READY_SECONDS) != 0:
                    raise Refused(f"{replica.name} failed:\n{replica.said}")
            elif condition == "service_healthy":
                until_sync(replica.is_healthy, seconds=_READY_SECONDS)

    def await_healthy(self, name: str) -> None:
        self._await(name, "service_healthy")

    @property
    def database_url(self) -> str:
        """As the superuser: for looking, not for what is tested."""
        return self._postgres.url

    @property
    def everything(self) -> list[Replica]:
        return [replica for replicas in self.replicas.values() for replica in replicas if replica.process is not None]

    def close(self) -> None:
        for replica in self.everything:
            if replica.alive.poll() is None:
                replica.kill()
        self.names.close()
        self._valkey.stop()
        self._postgres.stop()

    # -- one replica ---------------------------------------------------------------------------------------------------

    def _replica(self, name: str, service: compose.Service, number: int) -> Replica:
        target = service["build"]["target"]
        image = self._dockerfile.image(target)
        folder = self._work / f"{name}{number}"
        folder.mkdir()
        paths = self._paths(service, self._images[target], folder)
        host, port = f"127.0.0.{number + 1}", self.api_port if name == "api" else free_port()
        place = self._placing(paths, image, host, port)
        env = {key: place(str(value)) for key, value in (image.env | service.get("environment", {})).items()}
        # Time to break an answer, and to have one cancelled before it ends.
        env = {**env, "HOME": place("/app"), "ASSISTANT_PACE_SECONDS": "0.06", "OUTLAST_DISCONNECT_SECONDS": "1"}
        tmpfs = {paths.path(entry.partition(":")[0]): entry.partition(":")[2] for entry in service["tmpfs"]}
        user = service.get("user", image.user)
        box = Box(user, tmpfs, service.get("ulimits", {}).get("nofile"), self._isolated)
        for mountpoint in tmpfs:
            mountpoint.mkdir(exist_ok=True)
        cwd = paths.path(image.workdir)
        return Replica(f"{name}-{number}", service, image, box, env, cwd, place, folder / "log", host, port)

    def _paths(self, service: compose.Service, image: Path, folder: Path) -> Paths:
        """The image's folders, what is mounted in them, and a /tmp with a short name."""
        app = folder / "app"
        app.mkdir()
        for volume in service.get("volumes", []):
            source, target, *_ = volume.split(":")
            if target.startswith("/app/"):
                copy = shutil.copytree if (self._root / source).is_dir() else shutil.copy
                copy(self._root / source, app / target.removeprefix("/app/"))
        return Paths(
            {"/opt/outlast": image / "opt/outlast", "/app": app, "/tmp": folder / "t", "/run/outlast": self._secrets}
        )

    def _placing(self, paths: Paths, image: Image, host: str, port: int) -> Callable[[str], str]:
        """From what a container is told to what holds here: paths, addresses, and its one port."""
        socket = self._postgres.socket.parent
        addresses = {"@postgres:5432/outlast": f"@/outlast?host={socket}&port=5432&sslmode=disable", "0.0.0.0": host}
        if "valkey" in self.replicas:
            addresses["redis://valkey:6379/0"] = self._valkey.url
        (own,) = image.ports or {0}

        def place(text: str) -> str:
            if own:
                text = re.sub(rf"(?<!\d){own}(?!\d)", str(port), text)
                text = text.replace("127.0.0.1", host)
            text = paths.here(text)
            for there, here in addresses.items():
                text = text.replace(there, here)
            return text

        return place

    # -- what is not ours ----------------------------------------------------------------------------------------------

    def _make_password(self, service: compose.Service) -> None:
        """The service's own script, with this user in the place of those of the images."""
        self._secrets.mkdir()
        script = service["command"][0].replace("/run/outlast", str(self._secrets))
        script = script.replace("10001:10001", f"{os.geteuid()}:{os.getegid()}").replace(
            "chown postgres", f"chown {os.geteuid()}"
        )
        env = {"PATH": os.environ["PATH"], "POSTGRES_PASSWORD": secrets.token_urlsafe(9) + ":\\'x"}
        for _ in range(2):  # the second start keeps what the first one made
            subprocess.run([*service["entrypoint"], script], env=env, check=True)
            env.pop("POSTGRES_PASSWORD", None)

    def _settings_of_postgres(self) -> dict[str, str]:
        words = self.services["postgres"]["command"]
        return dict(word.split("=", 1) for flag, word in itertools.pairwise(words) if flag == "-c")

    def _start_postgres(self) -> None:
        """With the role of the service's environment, whose password is really asked for."""
        given: dict[str, Any] = self.services["postgres"]["environment"]
        self._postgres.start()
        password = (self._secrets / "password").read_text()
        with psycopg.connect(self._postgres.url, autocommit=True) as connection:
            name, database = (
                Identifier(given["POSTGRES_USER"]),
                Identifier(given["POSTGRES_DB"]),
            )
            connection.execute(SQL("CREATE ROLE {} LOGIN SUPERUSER PASSWORD {}").format(name, Literal(password)))
            connection.execute(SQL("ALTER DATABASE {} OWNER TO {}").format(database, name))
            (hba,) = connection.execute("SHOW hba_file").fetchone() or ("",)
            Path(hba).write_text("local all postgres trust\nlocal all all scram-sha-256\n")
            connection.execute("SELECT pg_reload_conf()")
