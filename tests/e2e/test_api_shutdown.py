"""SIGTERM ends an API replica in time, whatever its clients, its database and its broker do; nothing runs twice."""

from __future__ import annotations

import asyncio
import signal
import socket
from collections.abc import AsyncGenerator, Generator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import httpx
import pytest

from outlast.agent import Context, Request
from outlast.shared.settings import Settings
from tests.support.processes import Parts, free_port, parts
from tests.support.proxy import Mode, Proxy
from tests.support.service import worker
from tests.support.waiting import until

STREAMS = 100
WAITING = 5
EXIT_SECONDS = 7  # 5, and what a busy machine takes


async def silent(_request: Request, _context: Context):
    """Says something, and nothing more before it is ended."""
    yield "x"
    await asyncio.Event().wait()


async def flood(_request: Request, _context: Context):
    for number in range(3000):
        yield f"{number} " * 100


@pytest.fixture
def ways(database_url: str, redis_url: str) -> Generator[dict[str, Proxy]]:
    with Proxy(database_url) as database, Proxy(redis_url) as broker:
        yield {"database": database, "broker": broker}


@pytest.fixture
def started(ways: dict[str, Proxy], tmp_path: Path) -> Generator[Parts]:
    env = {
        "DATABASE_URL": ways["database"].url,
        "REDIS_URL": ways["broker"].url,
        "OUTLAST_AGENTS": "silent=tests:silent,flood=tests:flood",
        "OUTLAST_LOG_LEVEL": "warning",
    }
    with parts(env, tmp_path) as starting:
        yield starting


@asynccontextmanager
async def deaf_client(port: int, run: str) -> AsyncGenerator[None]:
    """Asks for a stream that is larger than what sockets hold, and never reads it."""
    _, writer = await asyncio.open_connection("127.0.0.1", port, limit=1)
    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    writer.transport.pause_reading()  # type: ignore[attr-defined]
    writer.write(f"GET /responses/{run}?stream=true HTTP/1.1\r\nhost: localhost\r\n\r\n".encode())
    await writer.drain()
    try:
        yield
    finally:
        writer.transport.abort()


class Streaming:
    """A client that reads a stream until it ends, one way or the other."""

    def __init__(self, http: httpx.AsyncClient, run: str) -> None:
        self.body = b""
        self.reading = asyncio.create_task(self._read(http, run))

    async def _read(self, http: httpx.AsyncClient, run: str) -> bool:
        """Whether the stream was aborted."""
        try:
            async with http.stream("GET", f"/responses/{run}?stream=true") as answer:
                async for piece in answer.aiter_raw():
                    self.body += piece
        except httpx.RemoteProtocolError:
            return True
        return False


@pytest.mark.parametrize("servers", [Mode.PASS, Mode.BLACK_HOLE])
async def test_a_replica_with_streams_and_waiting_clients_ends_in_time(
    started: Parts, ways: dict[str, Proxy], settings: Settings, servers: Mode
) -> None:
    port = free_port()
    api = await asyncio.to_thread(started.api, port)
    limits = httpx.Limits(max_connections=None)
    async with AsyncExitStack() as stack:
        http = await stack.enter_async_context(
            httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=30, limits=limits)
        )
        await stack.enter_async_context(worker(settings, {"silent": silent, "flood": flood}))
        answer = await http.post("/responses", json={"input": "x", "background": True})
        run = answer.json()["id"]
        big = (await http.post("/responses", json={"model": "flood", "input": "x"})).json()["id"]
        await stack.enter_async_context(deaf_client(port, big))
        streams = [Streaming(http, run) for _ in range(STREAMS)]
        posts = [asyncio.create_task(http.post("/responses", json={"input": "y"})) for _ in range(WAITING)]
        polls = [asyncio.create_task(http.get(f"/responses/{run}?wait=60")) for _ in range(WAITING)]

        async def all_there() -> bool:
            listed = (await http.get("/responses?limit=100")).json()["data"]
            return len(listed) == WAITING + 2 and all(b"delta" in stream.body for stream in streams)

        await until(all_there)
        for way in ways.values():
            way.mode = servers
        api.process.send_signal(signal.SIGTERM)
        code = await asyncio.to_thread(api.process.wait, EXIT_SECONDS)

        assert code == 0, api.said
        assert all([await stream.reading for stream in streams])
        assert not any(b"[DONE]" in stream.body for stream in streams)
        # The SDK follows this to another replica; a connection that breaks would have it post, and run, again.
        assert [(await post).status_code for post in posts] == [303] * WAITING
        ends = await asyncio.gather(*polls, return_exceptions=True)
        assert servers is Mode.BLACK_HOLE or [end.status_code for end in ends] == [200] * WAITING  # type: ignore[union-attr]


async def test_a_second_signal_ends_a_replica_at_once(started: Parts, ways: dict[str, Proxy]) -> None:
    port = free_port()
    api = await asyncio.to_thread(started.api, port)
    ways["database"].mode = Mode.BLACK_HOLE
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=30) as http:
        posting = asyncio.create_task(http.post("/responses", json={"input": "x"}))
        assert (await http.get("/health")).status_code == 200
        api.process.send_signal(signal.SIGTERM)

        async def not_listening() -> bool:
            try:
                await http.get("/health", headers={"connection": "close"})
            except httpx.TransportError:
                return True
            return False

        await until(not_listening)
        api.process.send_signal(signal.SIGTERM)
        assert await asyncio.to_thread(api.process.wait, EXIT_SECONDS) == 0
        with pytest.raises(httpx.TransportError):
            await posting  # for which the first signal had left some time
