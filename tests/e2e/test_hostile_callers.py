"""A real replica and callers without a key: what their bodies cost, and by which names they may call it."""

from __future__ import annotations

import socket
from collections.abc import Generator
from contextlib import suppress
from pathlib import Path

import httpx
import pytest
from fastapi.routing import iter_route_contexts

from outlast.api.app import create_app
from outlast.shared.settings import Settings
from tests.support.processes import Parts, free_port, parts, wait_serving
from tests.support.refusals import NOBODY

BODY_BYTES = 64 * 2**20
MOST_KB = 24 * 1024  # more than the allocator keeps for later, less than one body


@pytest.fixture
def started(database_url: str, redis_url: str, tmp_path: Path) -> Generator[Parts]:
    env = {"DATABASE_URL": database_url, "REDIS_URL": redis_url, "OUTLAST_AGENTS": "x=tests:x"}
    with parts({**env, "OUTLAST_AUTH": "api_keys", "OUTLAST_LOG_LEVEL": "warning"}, tmp_path) as starting:
        yield starting


def test_without_a_key_64_mb_on_each_route_cost_no_memory(started: Parts, settings: Settings) -> None:
    port = free_port()
    api = started.api(port)
    httpx.get(f"http://127.0.0.1:{port}/docs")  # what the first request makes
    before = most_memory_kb(api.process.pid)
    app = create_app(settings.model_copy(update={"agents": {"x": "tests:x"}}))
    for route in iter_route_contexts(app.routes):
        path = (route.path or "").replace("{id}", NOBODY).replace("{owner}", "h:1:x")
        for method in route.methods or ():
            send(port, method, path)
    assert httpx.get(f"http://127.0.0.1:{port}/health").status_code == 200
    assert most_memory_kb(api.process.pid) - before < MOST_KB


@pytest.mark.parametrize(("address", "status"), [("127.0.0.1", 421), ("0.0.0.0", 200)])
def test_a_replica_knows_whether_it_listens_on_loopback(started: Parts, address: str, status: int) -> None:
    port = free_port()
    api = started.launch(["api", "--host", address, "--port", str(port)], {"OUTLAST_AUTH": "none"})
    wait_serving(api, port)
    answer = httpx.get(f"http://127.0.0.1:{port}/models", headers={"host": "evil.example"})
    assert answer.status_code == status


def send(port: int, method: str, path: str) -> None:
    """As much of the body as the server takes, and its answer."""
    head = f"{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: {BODY_BYTES}\r\n\r\n"
    with socket.create_connection(("127.0.0.1", port), timeout=20) as client:
        client.sendall(head.encode())
        with suppress(ConnectionError):  # a server that has answered may hang up
            for _ in range(BODY_BYTES // 2**20):
                client.sendall(b"[" * 2**20)
            assert client.recv(9).startswith(b"HTTP/1.1 "), (method, path)


def most_memory_kb(pid: int) -> int:
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0])
