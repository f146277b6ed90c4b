"""The port on which a host asks a worker how it is: what is answered, to whom, and for how long."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncGenerator

import httpx
import pytest

from outlast.shared.settings import SettingsError
from outlast.worker import health
from outlast.worker.health import answering
from outlast.worker.pool.condition import Condition
from tests.support.processes import free_port

LEASE = 6.0


class Worker:
    """What a `Condition` looks at."""

    def __init__(self) -> None:
        self.now = 100.0
        self.children = 2
        self.missing_since: float | None = None
        self.condition = Condition(
            lambda: self.children, lambda: self.missing_since, lease_seconds=LEASE, clock=lambda: self.now
        )

    @property
    def said(self) -> tuple[str | None, str | None]:
        return self.condition.health(), self.condition.readiness()


async def forever() -> None:
    await asyncio.Event().wait()


@pytest.fixture
async def worker() -> AsyncGenerator[Worker]:
    """One that works."""
    working = Worker()
    keeping = working.condition.keeping = asyncio.create_task(forever())
    yield working
    keeping.cancel()


async def test_a_worker_that_beats_and_has_a_child_is_healthy_and_ready(worker: Worker) -> None:
    assert worker.said == (None, None)
    worker.missing_since = worker.now - LEASE + 0.1  # one missed beat is no outage
    assert worker.said == (None, None)


async def test_one_that_starts_lives_and_is_not_ready() -> None:
    assert Worker().said == (None, "it is starting")


async def test_a_database_that_is_away_makes_it_unready_and_leaves_it_alive(worker: Worker) -> None:
    worker.missing_since = worker.now - LEASE
    assert worker.said == (None, "no beat has reached the database for 6 s")
    worker.now += 3600
    assert worker.said == (None, "no beat has reached the database for 3606 s")
    worker.missing_since = None
    assert worker.said == (None, None)


async def test_a_worker_without_children_is_unready_at_once_and_dead_only_after_a_minute(worker: Worker) -> None:
    worker.children = 0
    assert worker.said == (None, "it has no child")
    worker.now += 59
    assert worker.said == (None, "it has no child")
    worker.now += 1
    assert worker.said == ("it has had no child for 60 s", "it has no child")
    worker.children = 1
    assert worker.said == (None, None)
    worker.children = 0
    assert worker.condition.health() is None  # the minute begins anew


async def test_a_worker_that_drains_lives(worker: Worker) -> None:
    worker.condition.draining = True
    worker.children = 0
    assert worker.said == (None, "it is draining")


async def test_a_worker_whose_beat_has_ended_is_dead() -> None:
    worker = Worker()
    worker.condition.keeping = asyncio.create_task(forever())
    worker.condition.keeping.cancel()
    await asyncio.wait({worker.condition.keeping})
    assert worker.said == ("its beat has ended", "its beat has ended")


@pytest.fixture
async def port() -> AsyncGenerator[int]:
    number = free_port()
    async with answering(number, {"/health": lambda: None, "/ready": lambda: "it is tired"}):
        yield number


async def exchange(port: int, sent: bytes) -> bytes:
    """All that is answered, until the other end hangs up."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(sent)
    try:
        return await asyncio.wait_for(reader.read(), 20)
    finally:
        writer.close()


async def test_it_answers_as_a_web_server_does(port: int) -> None:
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as client:
        well, ill = await client.get("/health?now=1"), await client.get("/ready")
        assert (well.status_code, well.json()) == (200, {"status": "healthy"})
        assert (ill.status_code, ill.json()) == (503, {"status": "unhealthy", "reason": "it is tired"})
        assert (await client.head("/health")).status_code == 200
        assert (await client.get("/")).status_code == 404
        assert (await client.post("/health", content=b"x" * 100_000)).status_code == 404


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"\x16\x03\x01\x02\x00\x01\x00\r\n\r\n", 400),  # TLS
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400),
        (b"GET\r\n\r\n", 400),
        (b"\r\n\r\n", 400),
        (b"GET /health HTTP/1.1\r\nx: " + b"x" * 10_000 + b"\r\n\r\n", 431),
        (b"x" * 300_000, 431),
        (b"GET /../../etc/passwd HTTP/1.1\r\n\r\n", 404),
        (b"GET /he\xff\x00lth HTTP/1.1\r\n\r\n", 404),
        (b"GET /health HTTP/1.1\r\n\r\nGET /health HTTP/1.1\r\n\r\n" * 50, 200),
    ],
)
async def test_garbage_is_answered_once_and_hung_up_on(port: int, sent: bytes, status: int) -> None:
    said = await exchange(port, sent)
    assert said.startswith(f"HTTP/1.1 {status} ".encode())
    assert said.count(b"HTTP/1.1") == 1


async def test_slow_and_silent_clients_are_hung_up_on(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health, "_SECONDS", 0.2)
    assert await exchange(port, b"") == b""
    assert await exchange(port, b"GET /health HT") == b""


async def test_however_many_hold_a_connection_the_next_one_is_answered(port: int) -> None:
    held = [await asyncio.open_connection("127.0.0.1", port) for _ in range(health._CONNECTIONS + 50)]
    assert (await exchange(port, b"GET /health HTTP/1.1\r\n\r\n")).startswith(b"HTTP/1.1 200 ")
    still_open = [not reader.at_eof() for reader, _ in held]
    assert sum(still_open) <= health._CONNECTIONS
    for _, writer in held:
        writer.close()


async def test_the_end_of_the_worker_hangs_up() -> None:
    number = free_port()
    async with answering(number, {"/health": lambda: None}):
        reader, writer = await asyncio.open_connection("127.0.0.1", number)
        assert (await exchange(number, b"GET /health HTTP/1.1\r\n\r\n")).startswith(b"HTTP/1.1 200 ")  # after it
    with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
        await asyncio.wait_for(reader.readexactly(1), 20)
    writer.close()
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection("127.0.0.1", number)


async def test_without_a_port_nothing_listens() -> None:
    async with answering(None, {}):
        pass


async def test_a_taken_port_is_named() -> None:
    with socket.socket() as taken:
        taken.bind(("0.0.0.0", 0))
        taken.listen()
        with pytest.raises(SettingsError, match=r"OUTLAST_HEALTH_PORT: 0\.0\.0\.0:\d+: Address already in use"):
            async with answering(taken.getsockname()[1], {}):
                pass
