"""The parts as real processes: started, watched, killed."""

from __future__ import annotations

import os
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Generator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx

from tests.support.waiting import until_sync

ROOT = Path(__file__).parents[2]
START_SECONDS = 60


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def alive(pid: int) -> bool:
    with suppress(FileNotFoundError, ProcessLookupError):
        return _stat(pid)[0] != "Z"
    return False


def parent_of(pid: int) -> int:
    return int(_stat(pid)[1])


def _stat(pid: int) -> list[str]:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()


def _children(pid: int) -> list[int]:
    """Without those of threads that have just ended; none of a process that has."""
    found: list[int] = []
    with suppress(FileNotFoundError, ProcessLookupError):
        for thread in Path(f"/proc/{pid}/task").iterdir():
            with suppress(FileNotFoundError, ProcessLookupError):
                found += [int(child) for child in (thread / "children").read_text().split()]
    return found


def descendants(pid: int) -> list[int]:
    return [found for child in _children(pid) for found in (child, *descendants(child))]


def agent_processes(worker: int) -> list[int]:
    """The processes in which a worker runs agents: those that its fork server made."""
    return [pid for child in _children(worker) for pid in descendants(child)]


def processes_of(folder: Path) -> list[int]:
    """Living processes whose working directory or command line is in this folder."""
    found: list[int] = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal() and int(entry.name) != os.getpid():
            try:
                command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                if str(folder) in f"{os.readlink(entry / 'cwd')} {command}":
                    found.append(int(entry.name))
            except OSError:
                continue
    return found


class Part:
    """One `outlast` command in its own session; what it prints is kept in a file."""

    def __init__(self, arguments: list[str], env: Mapping[str, str], output: Path, cwd: Path = ROOT) -> None:
        self._read, write = os.pipe()
        self.output = output
        with output.open("ab") as file:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "outlast.infra.cli", *arguments],
                env={**os.environ, **env, "OUTLAST_DEV_READY_FD": str(write)},
                cwd=cwd,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=file,
                pass_fds=(write,),
                start_new_session=True,
            )
        os.close(write)

    def wait_ready(self) -> None:
        """Until the worker has said that it is ready."""
        readable, _, _ = select.select([self._read], [], [], START_SECONDS)
        assert readable and os.read(self._read, 1) == b"1", self.said

    @property
    def said(self) -> str:
        return self.output.read_text(errors="replace")

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def stop(self, number: signal.Signals = signal.SIGTERM, seconds: float = 30) -> int:
        if self.process.poll() is None:
            self.process.send_signal(number)
        try:
            return self.process.wait(seconds)
        finally:
            if self.process.poll() is None:
                self.kill()

    def close(self) -> None:
        if self.process.poll() is None:
            self.kill()
        os.close(self._read)


def wait_serving(api: Part, port: int) -> None:
    def ready() -> bool:
        assert api.process.poll() is None, api.said
        try:
            return httpx.get(f"http://127.0.0.1:{port}/ready").status_code == 200
        except httpx.TransportError:
            return False

    until_sync(ready, seconds=START_SECONDS)


class Parts:
    """Starts parts on one database and broker."""

    def __init__(self, env: Mapping[str, str], folder: Path) -> None:
        self._env = {"OUTLAST_PRELOAD": "", "OUTLAST_CHILDREN": "1", **env}  # most tests need no more, and start sooner
        self._folder = folder
        self._started: list[Part] = []

    def worker(self, **env: str) -> Part:
        part = self.launch(["worker"], env)
        part.wait_ready()
        return part

    def api(self, port: int, **env: str) -> Part:
        part = self.launch(["api", "--port", str(port)], env)
        wait_serving(part, port)
        return part

    def launch(self, arguments: list[str], env: Mapping[str, str]) -> Part:
        """Not yet ready: several can be on their way at the same time."""
        output = self._folder / f"{arguments[0]}-{len(self._started)}.log"
        self._started.append(Part(arguments, {**self._env, **env}, output))
        return self._started[-1]

    def close(self) -> None:
        for part in self._started:
            part.close()


@contextmanager
def parts(env: Mapping[str, str], folder: Path) -> Generator[Parts]:
    started = Parts(env, folder)
    try:
        yield started
    finally:
        started.close()
