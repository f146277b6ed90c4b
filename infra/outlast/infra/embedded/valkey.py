"""A private Valkey, or Redis: the broker of `outlast dev`, of `outlast serve` and of the tests."""

from __future__ import annotations

import signal
import socket
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import ClassVar

from .binaries import ValkeyBinary, find_valkey
from .server import Server, StopSteps


class Valkey(Server):
    """Its append-only file is in `folder`/data, its socket where only its user can enter. No TCP port.

    The file is synced once a second: what was acknowledged survives the death of the process, but the last
    second may not survive the death of the machine. Not `persistent`: it keeps no file, and is empty when it is
    started again. `binary` replaces the one that would be found.
    """

    _name: ClassVar[str] = "Valkey"
    _variable: ClassVar[str] = "REDIS_URL"
    _socket_name: ClassVar[str] = "valkey.sock"
    _stop_steps: ClassVar[StopSteps] = ((signal.SIGTERM, 10), (signal.SIGKILL, 5))

    def __init__(self, folder: Path, *, persistent: bool = True, binary: ValkeyBinary | None = None) -> None:
        super().__init__(folder)
        self._persistent = persistent
        self._given = binary
        self._program = ""

    @cached_property
    def binary(self) -> ValkeyBinary:
        """Raises EmbeddedError when none is found."""
        return self._given or find_valkey()

    @property
    def version(self) -> str:
        """As in 9.1.2. Raises EmbeddedError when no server is found."""
        return self.binary.version

    @property
    def url(self) -> str:
        """What REDIS_URL would be, for redis-py."""
        return f"unix://{self.socket}?db=0"

    @property
    def broker_url(self) -> str:
        """The same server, for Celery."""
        return f"redis+socket://{self.socket}?virtual_host=0"

    def _prepare(self) -> None:
        self._program = str(self.binary.server)

    def _make_data(self, timeout_seconds: float) -> None:
        self.data.mkdir(mode=0o700, exist_ok=True)

    def _command(self) -> Sequence[str]:
        settings = {
            "port": "0",
            "unixsocket": str(self.socket),
            "unixsocketperm": "700",
            "appendonly": "yes" if self._persistent else "no",
            "appendfsync": "everysec",
            "save": "",
            "maxmemory-policy": "noeviction",
            "daemonize": "no",
        }
        # Its data folder is the one it is started in, so that any path will do.
        options = [word for key, value in settings.items() for word in (f"--{key}", value)]
        return [self._program, *options]

    def _is_ready(self) -> bool:
        """False too while it loads its file."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
            client.settimeout(1)
            try:
                client.connect(str(self.socket))
                client.sendall(b"PING\r\n")
                return client.recv(16).startswith(b"+PONG")
            except OSError:
                return False
