"""A run in the foreground is cancelled when its client has gone away, unless it comes back in time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from typing import Any

import httpx
import pytest

from outlast.agent import Context, Request
from outlast.shared.connections import Database
from outlast.shared.settings import Settings
from tests.support.service import Service, serving
from tests.support.waiting import until


class Slow:
    def __init__(self) -> None:
        self.started = asyncio.Event()
        self.gate = asyncio.Event()

    async def __call__(self, _request: Request, _context: Context):
        yield "begun "
        self.started.set()
        await self.gate.wait()
        yield "done"


@pytest.fixture
def agent() -> Slow:
    return Slow()


@pytest.fixture
async def service(settings: Settings, agent: Slow) -> AsyncGenerator[Service]:
    brief = settings.model_copy(update={"disconnect_seconds": 0.3})
    async with serving(brief, {"test": agent.__call__}, replicas=2) as serving_:
        yield serving_


async def dropped(service: Service, agent: Slow, **body: Any) -> None:
    """A POST whose client goes away while the run is under way."""
    async with httpx.AsyncClient(base_url=service.url, timeout=20) as client:
        asking = asyncio.create_task(client.post("/responses", json={"input": "x", **body}))
        await agent.started.wait()
        asking.cancel()
        await asyncio.wait({asking})


async def row(database: Database, columns: str) -> Any:
    async def read(connection: Any) -> Any:
        return await (await connection.execute(f"SELECT {columns} FROM runs")).fetchone()

    return await database.run(read)


async def in_status(database: Database, status: str) -> None:
    async def reached() -> bool:
        return (await row(database, "status"))[0] == status

    await until(reached)


@pytest.mark.parametrize("stream", [False, True])
async def test_a_run_whose_client_has_gone_is_cancelled(
    service: Service, agent: Slow, database: Database, stream: bool
) -> None:
    await dropped(service, agent, stream=stream)
    await in_status(database, "cancelled")


async def test_a_run_in_the_background_needs_no_client(service: Service, agent: Slow, database: Database) -> None:
    await dropped(service, agent, stream=True, background=True)
    agent.gate.set()
    await in_status(database, "completed")
    assert await row(database, "abandoned_at") == (None,)


async def test_a_client_that_comes_back_to_another_replica_goes_on(
    service: Service, agent: Slow, database: Database
) -> None:
    await dropped(service, agent, stream=True)

    async def noticed() -> bool:
        return (await row(database, "connections"))[0] == 0

    await until(noticed)
    run = (await row(database, "id"))[0]
    async with service.replicas[1].openai as client:
        stream = await client.responses.retrieve(f"resp_{run.hex}", stream=True)
        assert await row(database, "connections, abandoned_at") == (1, None)
        agent.gate.set()
        assert [event.type async for event in stream][-1] == "response.completed"


async def test_a_client_that_came_back_before_its_first_connection_was_missed_goes_on(
    service: Service, agent: Slow, database: Database
) -> None:
    async with httpx.AsyncClient(base_url=service.url, timeout=20) as first:
        asking = asyncio.create_task(first.post("/responses", json={"input": "x"}))
        await agent.started.wait()
        run = (await row(database, "id"))[0]
        async with service.replicas[1].openai as client:
            stream = await client.responses.retrieve(f"resp_{run.hex}", stream=True)
            refused = await first.get(f"/responses/resp_{run.hex}", params={"wait": 5, "starting_after": 1})
            assert refused.status_code == 400  # and waits for nothing
            asking.cancel()

            async def noticed() -> bool:
                return (await row(database, "connections"))[0] == 1

            await until(noticed)
            assert await row(database, "abandoned_at") == (None,)
            agent.gate.set()
            assert [event.type async for event in stream][-1] == "response.completed"


async def test_a_client_that_asks_again_and_again_keeps_its_run(
    service: Service, agent: Slow, database: Database
) -> None:
    await dropped(service, agent)

    async def noticed() -> bool:
        return (await row(database, "abandoned_at"))[0] is not None

    await until(noticed)
    run = (await row(database, "id"))[0]
    (before,) = await row(database, "abandoned_at")
    async with httpx.AsyncClient(base_url=service.replicas[1].url) as client:
        assert (await client.get(f"/responses/resp_{run.hex}")).json()["status"] == "in_progress"
        assert (await row(database, "abandoned_at"))[0] > before
        assert (await client.get(f"/responses/resp_{run.hex}?wait=0.05")).json()["status"] == "in_progress"
        assert (await row(database, "connections"))[0] == 0
        agent.gate.set()
        assert (await client.get(f"/responses/resp_{run.hex}?wait=10")).json()["status"] == "completed"


async def test_a_request_that_is_posted_again_with_its_key_goes_on(
    service: Service, agent: Slow, database: Database
) -> None:
    async with httpx.AsyncClient(base_url=service.url, timeout=20, headers={"Idempotency-Key": "k"}) as client:
        asking = asyncio.create_task(client.post("/responses", json={"input": "x"}))
        await agent.started.wait()
        asking.cancel()
        again = asyncio.create_task(client.post("/responses", json={"input": "x"}))

        async def back() -> bool:
            return await row(database, "connections, abandoned_at") == (1, None)

        await until(back)
        agent.gate.set()
        assert (await again).json()["status"] == "completed"


async def test_a_replica_that_stops_takes_no_client_for_gone(service: Service, agent: Slow, database: Database) -> None:
    async with httpx.AsyncClient(base_url=service.url, timeout=20) as client:
        asking = asyncio.create_task(client.post("/responses", json={"input": "x", "stream": True}))
        await agent.started.wait()
        await service.replicas[0].stop()
        await asyncio.wait({asking})
    assert await row(database, "status, connections, abandoned_at") == ("in_progress", 1, None)
    agent.gate.set()
    await in_status(database, "completed")
