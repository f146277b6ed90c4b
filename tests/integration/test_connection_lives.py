"""Connections get no older than they may: the login with which a Lakebase let them in ends, and so do its servers."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import cast

import pytest

from outlast.shared.connections import Connection, Database, fixed
from outlast.shared.notifications import listen
from outlast.shared.settings import Settings
from tests.support.waiting import until


@pytest.fixture
def database(database_url: str) -> Database:
    return Database(fixed(database_url), schema="outlast", application="tests", life_seconds=0.2)


async def backend(connection: Connection) -> int:
    row = await (await connection.execute("SELECT pg_backend_pid()")).fetchone()
    return cast(int, row[0] if row else 0)


async def test_a_pool_replaces_its_connections(database: Database) -> None:
    async with database.pooled(max_connections=1) as pooled:
        first = await pooled.run(backend)

        async def another() -> bool:
            return await pooled.run(backend) != first

        await until(another)


async def test_a_dedicated_connection_is_replaced_between_two_pieces_of_work(database: Database) -> None:
    dedicated = database.dedicated()
    try:
        first = await dedicated.run(backend)

        async def another() -> bool:
            return await dedicated.run(backend) != first

        await until(another)
    finally:
        await dedicated.close()


async def test_a_listener_ends_when_its_connection_is_old(database: Database) -> None:
    async with asyncio.timeout(20):
        assert [hints async for hints in listen(database, liveness_seconds=0.1)] == [[]]


def test_the_setting_says_how_old(settings: Settings) -> None:
    for seconds in (60.0, 2_000.0):
        config = settings.model_copy(update={"connection_life_seconds": seconds})
        assert Database.of(config, application="tests").life_seconds == seconds


async def test_a_cancel_that_is_lost_on_the_way_to_a_connection_counts(database: Database) -> None:
    """As the pool loses one now and then before Python 3.12."""
    begun = asyncio.Event()

    async def deaf(_: Connection) -> str:
        begun.set()
        with suppress(asyncio.CancelledError):
            await asyncio.Event().wait()
        return "done"

    async def tidy_up() -> int:
        try:
            await asyncio.Event().wait()
        finally:
            return await database.run(backend)  # noqa: B012 — the cancel has been heard

    async with database.pooled(max_connections=1):
        task = asyncio.create_task(database.run(deaf))
        await begun.wait()
        task.cancel()
        await asyncio.wait({task}, timeout=20)
        assert task.cancelled()
        tidying = asyncio.create_task(tidy_up())
        await asyncio.sleep(0)
        tidying.cancel()
        assert await tidying > 0
