"""A database that Outlast cannot work on is refused when a part starts; one without notifications is polled."""

from __future__ import annotations

import asyncio
import os
import sys

import psycopg
import pytest

from outlast.shared import fitness
from outlast.shared.connections import Database, fixed
from outlast.shared.domain.errors import Unavailable, Unfit
from outlast.shared.settings import Settings
from tests.support.pooler import pooled_by_transaction


async def test_a_session_of_ones_own_is_fit(settings: Settings, database: Database) -> None:
    await fitness.check_sessions(database)
    assert await fitness.with_a_tail_that_works(settings, database) is settings


async def test_a_pooler_by_transaction_is_not(settings: Settings) -> None:
    async with pooled_by_transaction(settings.required_database_url()) as url:
        database = Database(fixed(url), schema="outlast", application="tests")
        with pytest.raises(Unfit, match="pool_mode = session"):
            await fitness.check_sessions(database)


async def test_a_database_that_is_away_is_not_judged(settings: Settings) -> None:
    away = Database(fixed("postgresql://nobody@127.0.0.1:1/none"), schema="outlast", application="tests")
    with pytest.raises(Unavailable):
        await fitness.check_sessions(away)
    with pytest.raises(Unavailable):
        await fitness.with_a_tail_that_works(settings, away)


@pytest.mark.parametrize("part", ["api", "worker"])
async def test_a_part_ends_with_a_sentence_rather_than_half_work(part: str, settings: Settings, redis_url: str) -> None:
    async with pooled_by_transaction(settings.required_database_url()) as url:
        env = {
            **os.environ,
            "DATABASE_URL": url,
            "REDIS_URL": redis_url,
            "OUTLAST_AGENTS": "test=tests.support.adder:x",
        }
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "outlast.infra.cli", part, env=env, stdout=-1, stderr=-2
        )
        async with asyncio.timeout(60):
            said, _ = await process.communicate()
    assert process.returncode == 1
    assert b"pool_mode = session" in said and b"Traceback" not in said


async def test_without_notifications_events_are_polled_for(
    settings: Settings, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def never(*_: object, **__: object) -> None:
        return None

    async def unknown(*_: object, **__: object) -> None:
        raise psycopg.errors.FeatureNotSupported("no LISTEN here")

    for answer in (never, unknown):
        monkeypatch.setattr("outlast.shared.fitness.seconds_to_arrive", answer)
        assert (await fitness.with_a_tail_that_works(settings, database)).tail == "poll"
    polling = settings.model_copy(update={"tail": "poll"})
    assert await fitness.with_a_tail_that_works(polling, database) is polling
