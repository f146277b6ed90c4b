"""The sweep: patient after an outage, led by one, and heard when bells were lost."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta

import psycopg
import pytest
import redis

from outlast.shared.broker import key_prefix
from outlast.shared.connections import Database
from outlast.shared.domain.errors import Unavailable
from outlast.shared.doorbell import Doorbell, broker_queue
from outlast.shared.settings import Settings
from outlast.shared.store import sweeping
from outlast.shared.sweep import Sweep
from tests.support.rest import awake
from tests.support.runs import claimed_one, put_back, submitted
from tests.support.waiting import until, until_sync


class Bells(Doorbell):
    """A doorbell that only remembers."""

    def __init__(self) -> None:
        self.rung: list[str] = []

    def ring_if_silent(self, queue: str) -> None:
        self.rung.append(queue)


@asynccontextmanager
async def sweeper(settings: Settings, database: Database) -> AsyncGenerator[tuple[Sweep, Bells]]:
    bells = Bells()
    sweep = Sweep(database, settings, bells, awake(settings))
    try:
        yield sweep, bells
    finally:
        await sweep.close()


async def test_nothing_is_taken_back_before_the_database_has_answered_for_a_whole_lease(
    settings: Settings, database: Database
) -> None:
    await submitted(database)
    await claimed_one(database, lease_seconds=-1)
    async with sweeper(settings, database) as (sweep, bells):
        began = datetime.now(UTC)

        async def taken_back() -> bool:
            await sweep.look()
            return sweep.taken_back == 1

        assert not await taken_back()
        await until(taken_back)

        assert datetime.now(UTC) - began >= timedelta(seconds=settings.lease_seconds)
        assert bells.rung == ["default"]
        assert (await claimed_one(database)).attempt == 2


async def test_patience_begins_again_with_the_connection(settings: Settings, database: Database) -> None:
    async with sweeper(settings, database) as (sweep, _):
        began = datetime.now(UTC)

        async def a_lease_has_passed() -> bool:
            await sweep.look()
            return datetime.now(UTC) - began > timedelta(seconds=settings.lease_seconds)

        await until(a_lease_has_passed)
        await submitted(database)
        await claimed_one(database, lease_seconds=-1)
        await database.run(
            lambda c: c.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                "WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )
        )

        with pytest.raises(Unavailable):
            await sweep.look()
        await sweep.look()

        assert sweep.taken_back == 0


async def test_one_leads_and_the_others_do_nothing(settings: Settings, database: Database) -> None:
    await submitted(database)
    leader = await database.connect()
    async with sweeper(settings, database) as (sweep, bells), leader, leader.transaction():
        assert await sweeping.lead(leader)

        assert not (await sweep.look()).led
        assert bells.rung == []


async def test_a_leader_that_is_stopped_within_its_transaction_leads_for_two_seconds_at_most(
    settings: Settings, database: Database
) -> None:
    """Every connection of ours ends a transaction that stands still: nobody else has to notice."""
    stopped = await database.connect()
    async with sweeper(settings, database) as (sweep, _), stopped:
        await stopped.execute("BEGIN")
        assert await sweeping.lead(stopped)
        assert not (await sweep.look()).led

        async def another_leads() -> bool:
            return (await sweep.look()).led

        await until(another_leads)
        with pytest.raises(psycopg.Error):
            await stopped.execute("SELECT 1")


async def test_a_checkpoint_that_hangs_delays_the_takeover_of_no_other_run(
    settings: Settings, database: Database
) -> None:
    for thread in ("one", "two"):
        await submitted(database, thread=thread)
    hanging, other = [await claimed_one(database, lease_seconds=-1) for _ in range(2)]
    stopped = await database.connect(idle_in_transaction_session_timeout="0")
    async with stopped:
        await stopped.execute("BEGIN")
        await stopped.execute("SELECT fence(%s, 1)", (hanging.run_id,))

        assert await database.run(sweeping.take_back_expired, patience_seconds=0) == [other.run_id]
        await stopped.execute("COMMIT")
        assert await database.run(sweeping.take_back_expired) == [hanging.run_id]
        with pytest.raises(psycopg.Error) as fenced:
            await stopped.execute("SELECT fence(%s, 1)", (hanging.run_id,))

    assert fenced.value.sqlstate == "OL001"


async def test_a_thread_that_was_forgotten_goes_on(settings: Settings, database: Database) -> None:
    for thread in ("one", "two"):
        for _ in range(3):
            await submitted(database, thread=thread)
    await database.run(lambda c: c.execute("UPDATE runs SET ready = false"))
    async with sweeper(settings, database) as (sweep, _):
        await sweep.look()

    threads = {(await claimed_one(database)).thread for _ in range(2)}
    assert threads == {"one", "two"}


@pytest.mark.parametrize(("seconds", "busy"), [(3600, False), (0.1, True)])
async def test_the_next_look_is_soon_while_a_retry_is(
    settings: Settings, database: Database, seconds: float, busy: bool
) -> None:
    await submitted(database)
    assert await put_back(database, await claimed_one(database), seconds=seconds)
    async with sweeper(settings, database) as (sweep, _):
        assert (await sweep.look()).busy is busy


async def test_a_run_whose_retry_is_due_is_woken_and_rung_for(settings: Settings, database: Database) -> None:
    await submitted(database)
    assert await put_back(database, await claimed_one(database), seconds=0)
    async with sweeper(settings, database) as (sweep, bells):
        assert (await sweep.look()).ready_queues == ["default"]

    assert bells.rung == ["default"]
    assert (await claimed_one(database)).attempt == 2


async def test_a_bell_is_rung_again_only_when_none_is_on_its_way(settings: Settings, redis_url: str) -> None:
    doorbell = Doorbell(redis_url, settings.db_schema)
    with redis.Redis.from_url(redis_url) as broker:

        def bells(queue: str) -> int:
            return int(broker.llen(f"{key_prefix(settings.db_schema)}{broker_queue(settings.db_schema, queue)}"))  # type: ignore[arg-type]

        doorbell.start()
        try:
            doorbell.ring_if_silent("default")
            await asyncio.to_thread(until_sync, lambda: bells("default") == 1)
            doorbell.ring_if_silent("default")
            doorbell.ring("other")  # when this one has been rung, the first has been looked at
            await asyncio.to_thread(until_sync, lambda: bells("other") == 1)
            assert bells("default") == 1
            broker.flushdb()
            doorbell.ring_if_silent("default")
            await asyncio.to_thread(until_sync, lambda: bells("default") == 1)
        finally:
            doorbell.stop()
