"""Bells while the broker refuses, is silent or slow: a request does not notice, and bells are heard again later."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest
import redis.asyncio

from outlast.agent import Context, Request
from outlast.shared.domain.ids import new_uuid, response_id
from outlast.shared.doorbell import Doorbell
from outlast.shared.settings import Settings
from tests.support.processes import free_port
from tests.support.service import Service, serving
from tests.support.waiting import until

REQUESTS = 30


async def echo(request: Request, _context: Context):
    yield request.text


class Way:
    """A way to the broker: what comes along it passes only while it is open."""

    def __init__(self, redis_url: str) -> None:
        self._redis_url = redis_url
        self.port = free_port()
        self.number = parse_qs(urlsplit(redis_url).query).get("db", [urlsplit(redis_url).path.strip("/") or "0"])[0]
        self.url = f"redis://127.0.0.1:{self.port}/{self.number}"
        self.open = asyncio.Event()
        self.taken = asyncio.Event()
        self._pumps: set[asyncio.Task[None]] = set()
        self._writers: list[asyncio.StreamWriter] = []

    @asynccontextmanager
    async def built(self) -> AsyncGenerator[None]:
        server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
        try:
            yield
        finally:
            server.close()
            for pump in self._pumps:
                pump.cancel()
            await asyncio.gather(*self._pumps, return_exceptions=True)
            for writer in self._writers:
                writer.close()
                with contextlib.suppress(OSError):
                    await writer.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.append(writer)
        self.taken.set()
        parts = urlsplit(self._redis_url)
        if parts.scheme == "unix":
            their_reader, their_writer = await asyncio.open_unix_connection(parts.path)
        else:
            their_reader, their_writer = await asyncio.open_connection(parts.hostname, parts.port)
        self._writers.append(their_writer)
        for source, sink in ((reader, their_writer), (their_reader, writer)):
            self._pumps.add(asyncio.create_task(self._pump(source, sink)))

    async def _pump(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await source.read(65536):
                await self.open.wait()
                sink.write(data)
        sink.close()


@pytest.fixture
async def way(redis_url: str) -> Way:
    return Way(redis_url)


@pytest.fixture
async def broker(redis_url: str) -> AsyncGenerator[redis.asyncio.Redis]:
    async with redis.asyncio.Redis.from_url(redis_url) as client:
        yield client


@pytest.fixture
def doorbell(way: Way) -> Generator[Doorbell]:
    doorbell = Doorbell(way.url, "outlast")
    doorbell.start()
    yield doorbell
    doorbell.stop()


async def bells(broker: redis.asyncio.Redis, queue: str = "default") -> list[bytes]:
    return await broker.lrange(f"outlast:outlast.{queue}", 0, -1)  # type: ignore[misc]


async def submit(service: Service) -> None:
    async with httpx.AsyncClient(base_url=service.url, timeout=20) as http:
        for _ in range(REQUESTS):
            answer = await http.post("/responses", json={"input": "hi", "background": True})
            assert answer.status_code == 200


@asynccontextmanager
async def ringing_along(way: Way, settings: Settings) -> AsyncGenerator[Service]:
    along = settings.model_copy(update={"redis_url": type(settings.redis_url)(way.url)})  # type: ignore[misc, call-arg]
    async with serving(along, {"echo": echo}, workers=0) as service:
        yield service


async def test_a_bell_names_its_queue_and_perhaps_a_run(
    doorbell: Doorbell, way: Way, broker: redis.asyncio.Redis
) -> None:
    way.open.set()
    run_id = new_uuid()
    async with way.built():
        doorbell.ring("q", run_id)
        doorbell.ring("other")
        [named] = await until(lambda: bells(broker, "q"))
        [plain] = await until(lambda: bells(broker, "other"))
    assert response_id(run_id).encode() in named and b"resp_" not in plain


async def test_many_rings_are_a_few_bells(doorbell: Doorbell, way: Way, broker: redis.asyncio.Redis) -> None:
    way.open.set()
    async with way.built():
        for _ in range(10_000):
            doorbell.ring("default", new_uuid())
        assert await until(lambda: bells(broker))
        doorbell.stop()
    assert len(await bells(broker)) < 1000


async def test_a_broker_that_refuses_costs_a_request_nothing_and_is_found_again(
    way: Way, settings: Settings, broker: redis.asyncio.Redis
) -> None:
    async def lost() -> bool:
        return service.replicas[0].services.doorbell.lost > 0

    async with ringing_along(way, settings) as service:
        await submit(service)
        await until(lost)
        way.open.set()
        async with way.built():
            await submit(service)
            assert await until(lambda: bells(broker))


async def test_a_broker_that_never_answers_costs_a_request_nothing_and_may_answer_later(
    way: Way, settings: Settings, broker: redis.asyncio.Redis
) -> None:
    async with ringing_along(way, settings) as service, way.built():
        doorbell = service.replicas[0].services.doorbell
        await submit(service)
        await way.taken.wait()
        await submit(service)
        assert doorbell.lost == 0  # the bell is still on its way: nobody has waited for it

        way.open.set()
        doorbell.ring("default")
        assert await until(lambda: bells(broker))
