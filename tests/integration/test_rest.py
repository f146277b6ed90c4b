"""A service with nothing to do leaves the database alone, and misses nothing when there is something again."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import httpx
import pytest
from redis.asyncio import Redis

from outlast.agent import Context, Request
from outlast.shared.connections import Database
from outlast.shared.doorbell import Doorbell
from outlast.shared.hints import Hints
from outlast.shared.rest import Rest
from outlast.shared.settings import Settings
from outlast.shared.store import workers
from outlast.shared.sweep import Sweep
from tests.support.outages import Outages
from tests.support.runs import claimed_one, submitted
from tests.support.service import Service, serving
from tests.support.waiting import until, until_sync

REST_SECONDS = 0.3
QUIET_SECONDS = 3.0  # thirty sweeps and fifteen beats


async def words(_request: Request, _context: Context):
    yield "two "
    yield "words"


class Held:
    """An agent that waits until it is let go."""

    def __init__(self) -> None:
        self.let_go = asyncio.Event()

    async def agent(self, _request: Request, _context: Context):
        yield "begun "
        await self.let_go.wait()
        yield "ended"


@pytest.fixture
def resting(settings: Settings) -> Settings:
    return settings.model_copy(update={"rest_after_seconds": 1.0})


@asynccontextmanager
async def rested(settings: Settings, database: Database, agent: object = words) -> AsyncGenerator[Service]:
    """Two replicas and a worker, which have gone to rest."""
    async with serving(settings, {"test": agent}, replicas=2) as service:
        await until(lambda: quiet_for(database, QUIET_SECONDS))
        yield service


async def quiet_for(database: Database, seconds: float) -> bool:
    """Whether no connection of the service's has been sent a statement for so long."""
    cursor = await database.run(
        lambda c: c.execute(
            """SELECT coalesce(extract(epoch FROM now() - max(query_start)), 0) FROM pg_stat_activity
               WHERE datname = current_database() AND application_name <> 'tests'"""
        )
    )
    row = await cursor.fetchone()
    return row is not None and row[0] >= seconds


async def nobody_listens(database: Database) -> bool:
    cursor = await database.run(
        lambda c: c.execute(
            """SELECT count(*) FROM pg_stat_activity
               WHERE datname = current_database() AND application_name LIKE '%% listener'"""
        )
    )
    return await cursor.fetchone() == (0,)


async def test_with_nothing_to_do_no_statement_reaches_the_database(resting: Settings, database: Database) -> None:
    async with rested(resting, database) as service:
        await until(lambda: nobody_listens(database))
        async with httpx.AsyncClient(base_url=service.url) as client:
            await client.get("/metrics")  # reads what is to be shown once for the rest
            await until(lambda: quiet_for(database, 0.5))
            assert (await client.get("/ready")).status_code == 200
            assert "outlast_database_up 1.0" in (await client.get("/metrics")).text
        assert await quiet_for(database, 0.5)


async def test_the_first_request_after_a_rest_works_also_when_the_database_was_suspended(
    resting: Settings, database: Database
) -> None:
    async with rested(resting, database) as service:
        await database.run(
            lambda c: c.execute(
                """SELECT pg_terminate_backend(pid) FROM pg_stat_activity
                   WHERE datname = current_database() AND application_name <> 'tests'"""
            )
        )
        response = await service.openai.responses.create(model="test", input="hi")
        assert response.output_text == "two words"
        streamed = [event async for event in await service.openai.responses.create(input="hi", stream=True)]
        assert streamed[-1].type == "response.completed"


async def test_a_request_to_one_replica_wakes_the_others(resting: Settings, database: Database) -> None:
    held = Held()
    async with rested(resting, database, held.agent) as service:
        response = await service.openai.responses.create(model="test", input="hi", background=True)
        tails = [replica.services.tail for replica in service.replicas]
        await until(lambda: _true(all(tail.listening for tail in tails)))
        # For as long as the run takes, and however long that is: here more than a rest needs.
        awake = [replica.services.rest for replica in service.replicas]
        since = min(rest.since for rest in awake)
        await until(lambda: _true(all(rest.since > since + resting.rest_after_seconds for rest in awake)))
        assert not any(rest.resting for rest in awake)
        held.let_go.set()
        stream = await service.replicas[1].openai.responses.retrieve(response.id, stream=True)
        assert [event async for event in stream][-1].type == "response.completed"


async def test_a_resting_worker_counts_as_alive(resting: Settings, database: Database) -> None:
    async with rested(resting, database) as service, httpx.AsyncClient(base_url=service.url) as client:
        (worker,) = (await client.get("/admin/workers")).json()["data"]
        assert worker["alive"] and worker["resting"]
        long_ago = "UPDATE workers SET seen_at = now() - interval '30 min'"
        await database.run(lambda c: c.execute(long_ago))
        await database.run(workers.forget_silent)
        (worker,) = (await client.get("/admin/workers")).json()["data"]
        assert worker["alive"]


async def test_a_resting_worker_hears_that_it_is_to_drain(resting: Settings, database: Database) -> None:
    async with rested(resting, database) as service, httpx.AsyncClient(base_url=service.url) as client:
        (worker,) = (await client.get("/admin/workers")).json()["data"]
        await client.post(f"/admin/workers/{worker['owner']}/drain")
        await asyncio.wait_for(service.workers[0].dispatcher.drain_asked.wait(), 10)


async def test_a_run_that_is_not_stored_is_removed_before_the_rest(
    resting: Settings, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("outlast.shared.retention._LOOK_SECONDS", 0.5)
    brief = resting.model_copy(update={"unstored_seconds": 2.0})
    async with serving(brief, {"test": words}, replicas=1) as service:
        await service.openai.responses.create(model="test", input="hi", store=False)
        await until(lambda: quiet_for(database, QUIET_SECONDS))
    cursor = await database.run(lambda c: c.execute("SELECT count(*) FROM runs"))
    assert await cursor.fetchone() == (0,)


async def test_nobody_rests_who_cannot_be_told(resting: Settings, database: Database, redis_url: str) -> None:
    async with rested(resting, database) as service, Redis.from_url(redis_url) as redis:
        rest = service.replicas[0].services.rest
        assert rest.resting
        await redis.client_kill_filter(_type="pubsub")
        await until(lambda: _true(not rest.resting))
        await until(lambda: _true(rest.resting))  # when it has been told for a while that it can be told


class Ear:
    def __init__(self) -> None:
        self.hearing = True
        self.told = 0

    def awake(self) -> None:
        self.told += 1


async def test_others_are_told_now_and_then_rather_than_each_time(settings: Settings) -> None:
    ear = Ear()
    rest = Rest(settings.model_copy(update={"rest_after_seconds": 0.3}), ear)
    for _ in range(100):
        rest.stir()
    assert ear.told == 1
    until_sync(lambda: rest.resting)
    rest.stirred()
    assert ear.told == 1 and not rest.resting
    until_sync(lambda: rest.resting)
    rest.stir()
    assert ear.told == 2


@asynccontextmanager
async def sweeping_alone(settings: Settings, database: Database) -> AsyncGenerator[tuple[Sweep, Rest]]:
    """A process that rests soon, beside a run whose worker is gone."""
    rest = Rest(settings.model_copy(update={"rest_after_seconds": REST_SECONDS}), Ear())
    sweep = Sweep(database, settings, Doorbell(settings.required_redis_url(), settings.db_schema), rest)
    await submitted(database)
    await claimed_one(database, lease_seconds=-1)
    sweeping = asyncio.create_task(sweep.run_forever())
    try:
        yield sweep, rest
    finally:
        sweeping.cancel()
        await asyncio.wait({sweeping})


async def test_an_outage_is_no_reason_to_rest(settings: Settings, database: Database, database_url: str) -> None:
    async with sweeping_alone(settings, database) as (sweep, rest):
        with Outages(database_url).refused_logins():
            over = time.monotonic() + 3 * REST_SECONDS
            await until(lambda: _true(time.monotonic() > over))
            assert not rest.resting
        await until(lambda: _true(sweep.taken_back == 1))


async def test_a_process_that_was_stopped_looks_before_it_rests(settings: Settings, database: Database) -> None:
    async with sweeping_alone(settings, database) as (sweep, rest):
        since = rest.since
        await until(lambda: _true(rest.since > since))  # it has found the run, and sleeps until its next look
        until_sync(lambda: rest.resting)
        await until(lambda: _true(sweep.taken_back == 1))


async def test_zero_means_never(settings: Settings) -> None:
    rest = Rest(settings.model_copy(update={"rest_after_seconds": 0.0}), Ear())
    assert not rest.resting
    await rest.over()


async def test_a_rest_ends_when_somebody_stirs(settings: Settings) -> None:
    rest = Rest(settings.model_copy(update={"rest_after_seconds": 0.05}), Ear())
    until_sync(lambda: rest.resting)
    waiting = [asyncio.create_task(rest.over()) for _ in range(3)]
    await asyncio.sleep(0)
    rest.stir()
    await asyncio.wait_for(asyncio.gather(*waiting), 5)
    await rest.over(at_most=0.01)


async def test_a_rest_that_is_cancelled_as_it_ends_is_cancelled(settings: Settings) -> None:
    rest = Rest(settings.model_copy(update={"rest_after_seconds": 0.05}), Ear())
    until_sync(lambda: rest.resting)
    waiting = asyncio.create_task(rest.over())
    await asyncio.sleep(0)
    rest.stir()
    waiting.cancel()
    await asyncio.wait({waiting}, timeout=5)
    assert waiting.cancelled()


async def test_listening_ends_whenever_it_is_cancelled(settings: Settings) -> None:
    hints = Hints(settings.required_redis_url(), settings.db_schema)
    for turns in range(60):
        listening = asyncio.create_task(hints.listen(awake=lambda: None))
        for _ in range(turns):
            await asyncio.sleep(0)
        listening.cancel()
        await asyncio.wait({listening}, timeout=5)
        assert listening.cancelled(), turns
    await hints.close()


async def test_listening_goes_on_after_a_word_that_is_none(settings: Settings, redis_url: str) -> None:
    hints = Hints(settings.required_redis_url(), settings.db_schema)
    stirs: list[bool] = []
    listening = asyncio.create_task(hints.listen(awake=lambda: stirs.append(hints.hearing)))
    await until(lambda: _true(hints.hearing))
    async with Redis.from_url(redis_url) as redis:
        place = f"{settings.db_schema}:{redis.get_connection_kwargs()['db']}"
        assert await redis.publish(f"{place}:cancelled", b"\xff") == 1
    await until(lambda: _true(stirs[-2:] == [False, True]))  # looks at once, and again when it hears again
    assert not listening.done()
    listening.cancel()
    await asyncio.wait({listening})
    await hints.close()


async def _true(value: bool) -> bool:
    return value
