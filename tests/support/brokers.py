"""Valkeys with a port, in the modes that operators run them in."""

from __future__ import annotations

import subprocess
from collections.abc import Generator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import redis
from redis.crc import key_slot
from redis.exceptions import RedisError

from outlast.infra.embedded.binaries import find_valkey
from outlast.shared.broker import key_prefix
from tests.support.processes import free_port
from tests.support.waiting import until_sync

_LAST_SLOT = 16383


@contextmanager
def valkey(folder: Path, **options: str) -> Generator[int]:
    """One server, which keeps nothing; the port it answers on."""
    port = free_port()
    folder.mkdir(parents=True)
    given = {"port": str(port), "save": "", "bind": "127.0.0.1", **{k.replace("_", "-"): v for k, v in options.items()}}
    command = [str(find_valkey().server), *(word for key, value in given.items() for word in (f"--{key}", value))]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, cwd=folder, stdout=log, stderr=log)
    try:
        until_sync(lambda: answers(port, options.get("requirepass")))
        yield port
    finally:
        process.kill()
        process.wait()


def answers(port: int, password: str | None) -> bool:
    with redis.Redis(port=port, password=password) as client:
        try:
            return bool(client.ping())
        except RedisError:
            return False


def asked(port: int, *command: Any) -> Any:
    with redis.Redis(port=port) as client:
        return client.execute_command(*command)


@contextmanager
def cluster(folder: Path, *, nodes: int, schema: str = "outlast") -> Generator[list[int]]:
    """Nodes of a cluster: the last one holds the keys of this schema, the first one all others."""
    with ExitStack() as stack:
        buses = [free_port() for _ in range(nodes)]
        ports = [
            stack.enter_context(valkey(folder / str(bus), cluster_enabled="yes", cluster_port=str(bus)))
            for bus in buses
        ]
        ours = key_slot(key_prefix(schema).encode())
        asked(ports[0], "CLUSTER", "ADDSLOTSRANGE", 0, ours - 1, ours + 1, _LAST_SLOT)
        asked(ports[-1], "CLUSTER", "ADDSLOTS", ours)
        for number, (port, bus) in enumerate(zip(ports, buses, strict=True)):
            asked(port, "CLUSTER", "SET-CONFIG-EPOCH", number + 1)
            if number:
                asked(ports[0], "CLUSTER", "MEET", "127.0.0.1", port, bus)
        until_sync(lambda: all(b"cluster_state:ok" in asked(port, "CLUSTER", "INFO") for port in ports))
        yield ports
