"""Bells while the broker refuses, is silent or slow: a request does not notice, and bells are heard again later."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager

import httpx
import pytest
import redis.asyncio

from outlast.agent import Context, Request
from outlast.shared.domain.ids import new_uuid, response_id
from outlast.shared.doorbell import Doorbell
from outlast.shared.settings import Settings
from tests.support.proxy import Mode, Proxy
from tests.support.service import Service, serving
from tests.support.waiting import until

REQUESTS = 30


async def echo(request: Request, _context: Context):
    yield request.text


@pytest.fixture
def way(redis_url: str) -> Generator[Proxy]:
    """The way to the broker."""
    with Proxy(redis_url) as proxy:
        yield proxy


@pytest.fixture
async def broker(redis_url: str) -> AsyncGenerator[redis.asyncio.Redis]:
    async with redis.asyncio.Redis.from_url(redis_url) as client:
        yield client


@pytest.fixture
def doorbell(way: Proxy) -> Generator[Doorbell]:
    doorbell = Doorbell(way.url, "outlast")
    doorbell.start()
    yield doorbell
    doorbell.stop()


async def bells(broker: redis.asyncio.Redis, queue: str = "default") -> list[bytes]:
    return await broker.lrange(f"{{outlast}}:outlast.{queue}", 0, -1)  # type: ignore[misc]


async def submit(service: Service) -> None:
    async with httpx.AsyncClient(base_url=service.url, timeout=20) as http:
        for _ in range(REQUESTS):
            answer = await http.post("/responses", json={"input": "hi", "background": True})
            assert answer.status_code == 200


@asynccontextmanager
async def ringing_along(way: Proxy, settings: Settings) -> AsyncGenerator[Service]:
    along = settings.model_copy(update={"redis_url": type(settings.redis_url)(way.url)})  # type: ignore[misc, call-arg]
    async with serving(along, {"echo": echo}, workers=0) as service:
        yield service


async def test_a_bell_names_its_queue_and_perhaps_a_run(
    doorbell: Doorbell, way: Proxy, broker: redis.asyncio.Redis
) -> None:
    run_id = new_uuid()
    doorbell.ring("q", run_id)
    doorbell.ring("other")
    [named] = await until(lambda: bells(broker, "q"))
    [plain] = await until(lambda: bells(broker, "other"))
    assert response_id(run_id).encode() in named and b"resp_" not in plain


async def test_many_rings_are_a_few_bells(doorbell: Doorbell, way: Proxy, broker: redis.asyncio.Redis) -> None:
    for _ in range(10_000):
        doorbell.ring("default", new_uuid())
    assert await until(lambda: bells(broker))
    doorbell.stop()
    assert len(await bells(broker)) < 1000


async def test_a_broker_that_refuses_costs_a_request_nothing_and_is_found_again(
    way: Proxy, settings: Settings, broker: redis.asyncio.Redis
) -> None:
    async def lost() -> bool:
        return service.replicas[0].services.doorbell.lost > 0

    way.mode = Mode.REFUSE
    async with ringing_along(way, settings) as service:
        await submit(service)
        await until(lost)
        way.mode = Mode.PASS
        await submit(service)
        assert await until(lambda: bells(broker))


async def test_a_broker_that_never_answers_costs_a_request_nothing_and_may_answer_later(
    way: Proxy, settings: Settings, broker: redis.asyncio.Redis
) -> None:
    async def taken() -> bool:
        return way.connections > 0

    way.mode = Mode.BLACK_HOLE
    async with ringing_along(way, settings) as service:
        doorbell = service.replicas[0].services.doorbell
        await submit(service)
        await until(taken)
        await submit(service)
        assert doorbell.lost == 0  # the bell is still on its way: nobody has waited for it

        way.mode = Mode.PASS
        doorbell.ring("default")
        assert await until(lambda: bells(broker))
