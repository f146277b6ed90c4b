"""The life of a private server: one starter at a time, orphans ended first, ready when start returns.

Two locks guard a folder. The starter's is held by the process that calls `start`. The server's is inherited
by the server and all it forks: it is free when the last of them is gone, so no two servers share data.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import ClassVar

import structlog

from .accounts import own_account
from .errors import AlreadyRunning, EmbeddedError
from .locks import FileLock
from .sockets import listener_pid, socket_folder

log = structlog.get_logger()

POLL_SECONDS = 0.02
TAIL_LINES = 20
DYING_STARTER_SECONDS = 0.5  # what kill -9 has ended may take a moment to be gone
StopSteps = tuple[tuple[signal.Signals, float], ...]


class Server(ABC):
    """A server with its data in `folder`. What Postgres and Valkey have in common; not thread-safe."""

    _name: ClassVar[str]
    _variable: ClassVar[str]  # the setting which makes this server unnecessary
    _socket_name: ClassVar[str]
    _stop_steps: ClassVar[StopSteps]  # signals, and how many seconds each is given

    def __init__(self, folder: Path) -> None:
        self.folder = folder.absolute()
        self.log_file = self.folder / f"{self._name.lower()}.log"
        self._log_start = 0
        self._home = self.folder
        self._account = own_account()
        self._socket: Path | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._starter = FileLock(self.folder / "starter.lock")
        self._server = FileLock(self.folder / "server.lock")

    def start(self, timeout_seconds: float = 60) -> None:
        """Start, and return when it answers. `timeout_seconds` limits the silence of its log, not its work.

        Raises AlreadyRunning while a living process holds the folder, EmbeddedError for everything else."""
        try:
            self._take_folder()
            try:
                self._bring_up(timeout_seconds)
            except BaseException:  # Ctrl-C too: no server outlives a start which failed
                self.stop()
                raise
        except (OSError, subprocess.TimeoutExpired) as error:
            raise EmbeddedError(f"{self._name} cannot use {self.folder}: {error}. {self._what_to_do()}") from error

    def stop(self) -> None:
        """End the server, orderly if it can, and free the folder. Does nothing when nothing runs."""
        if self._process is not None:
            _end(self._process, self._stop_steps)
        if self._socket is not None:
            with suppress(OSError):  # not empty after a crash; then the next stop removes it
                self._socket.parent.rmdir()
        self._release()

    def kill(self) -> None:
        """SIGKILL the server's first process and free the folder. For tests."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
        self._release()

    def poll(self) -> int | None:
        """The exit code of the server, negative for a signal; None while it runs or before it was started."""
        return None if self._process is None else self._process.poll()

    @property
    def pid(self) -> int:
        if self._process is None:
            raise EmbeddedError(f"{self._name} was not started: call start() first.")
        return self._process.pid

    @property
    def socket(self) -> Path:
        if self._socket is None:
            raise EmbeddedError(f"{self._name} was not started: call start() first.")
        return self._socket

    @property
    def data(self) -> Path:
        return self._home / "data"

    @abstractmethod
    def _prepare(self) -> None:
        """Decide on programs, account and home. Changes no data: an older server may still be at work."""

    @abstractmethod
    def _make_data(self, timeout_seconds: float) -> None:
        """Make the data folder, unless it is there."""

    @abstractmethod
    def _command(self) -> Sequence[str]: ...

    @abstractmethod
    def _is_ready(self) -> bool: ...

    def _take_folder(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        self._make_private()
        is_alive = self._process is not None and self._process.poll() is None
        if is_alive or not _wait_until(self._starter.try_acquire, DYING_STARTER_SECONDS):
            raise AlreadyRunning(self.folder, self._starter.read_note())
        self._starter.write_note(str(os.getpid()))

    def _make_private(self) -> None:
        """Take rights of other users away. As another user root may start a server, which has to enter the folder."""
        with suppress(OSError):  # a mount of Windows or macOS keeps no modes
            self.folder.chmod(self.folder.stat().st_mode & (0o711 if os.geteuid() == 0 else 0o700))
            if self.log_file.exists():
                self.log_file.chmod(0o600)

    def _bring_up(self, timeout_seconds: float) -> None:
        self._log_start = self.log_file.stat().st_size if self.log_file.exists() else 0
        self._prepare()
        self._end_orphan()
        self._make_data(timeout_seconds)
        self._choose_socket()
        self._launch()
        self._await_ready(timeout_seconds)

    def _end_orphan(self) -> None:
        """Hold the server's lock. A server that still holds it has lost its starter: it is ended.

        Nobody but us can listen in our private folder, so whoever listens there is that server."""
        if self._server.try_acquire():
            return
        for number, seconds in self._stop_steps:
            pid = listener_pid(Path(self._server.read_note()))
            if pid:
                log.warning("embedded.orphan.signalled", server=self._name, pid=pid, signal=number.name)
                with suppress(ProcessLookupError):
                    os.kill(pid, number)
            if _wait_until(self._server.try_acquire, seconds):
                return
        raise EmbeddedError(
            f"A {self._name} of an earlier start holds {self._server.path} and cannot be ended from here: "
            "end it (lsof names it; it may be in another container), then start again."
        )

    def _choose_socket(self) -> None:
        private = socket_folder(self._home, self._socket_name, uid=self._account.uid, gid=self._account.gid)
        self._socket = private / self._socket_name
        self._server.write_note(str(self._socket))

    def _launch(self) -> None:
        self._spawn(self._command(), self.data)
        self._server.release()  # from here on it is held by the server alone

    def _spawn(self, command: Sequence[str], cwd: Path) -> subprocess.Popen[bytes]:
        """Start a program that shares the server's lock and writes to the log."""
        with open(self.log_file, "ab", opener=lambda path, flags: os.open(path, flags, 0o600)) as output:
            self._process = self._account.popen(command, cwd=cwd, output=output, keep_open=self._server.fd)
        return self._process

    def _await_ready(self, timeout_seconds: float) -> None:
        said, deadline = -1, 0.0
        while not self._is_ready():
            if (code := self.poll()) is not None:
                raise self._failure(f"ended with exit code {code} instead of starting")
            if (size := self.log_file.stat().st_size) != said:  # a long recovery tells that it goes on
                said, deadline = size, time.monotonic() + timeout_seconds
            if time.monotonic() > deadline:
                raise self._failure(f"is not ready and has said nothing for {timeout_seconds:g} s")
            time.sleep(POLL_SECONDS)

    def _failure(self, what: str) -> EmbeddedError:
        said = self.log_file.read_bytes()[self._log_start :].decode(errors="replace").splitlines()
        tail = "\n".join(f"  {line}" for line in said[-TAIL_LINES:]) or "  (nothing)"
        return EmbeddedError(f"{self._name} {what}. {self._what_to_do()}\nThe end of {self.log_file}:\n{tail}")

    def _what_to_do(self) -> str:
        return f"Mend the cause, or move {self.folder} away to begin with empty data, or set {self._variable}."

    def _release(self) -> None:
        self._server.release()
        self._starter.release()


def _end(process: subprocess.Popen[bytes], steps: StopSteps) -> None:
    for number, seconds in steps:
        process.send_signal(number)  # does nothing when it has ended
        with suppress(subprocess.TimeoutExpired):
            process.wait(seconds)
            return


def _wait_until(condition: Callable[[], bool], seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(POLL_SECONDS)
    return True
