"""A database that Outlast cannot work on is refused when a part starts; one without notifications is polled."""

from __future__ import annotations

import asyncio
import os
import re
import sys
from types import SimpleNamespace

import psycopg
import pytest

from outlast.api import server
from outlast.shared import fitness
from outlast.shared.connections import Connection, Database, fixed
from outlast.shared.domain.errors import Unavailable, Unfit
from outlast.shared.settings import Settings
from outlast.shared.store import schema
from tests.support.old_server import a_server_of_version
from tests.support.pooler import pooled_by_transaction


async def test_a_session_of_ones_own_is_fit(settings: Settings, database: Database) -> None:
    await fitness.check_sessions(database)
    assert await fitness.with_a_tail_that_works(settings, database) is settings


async def test_a_pooler_by_transaction_is_not(settings: Settings) -> None:
    async with pooled_by_transaction(settings.required_database_url()) as url:
        database = Database(fixed(url), schema="outlast", application="tests")
        with pytest.raises(Unfit, match="pool_mode = session"):
            await fitness.check_sessions(database)


async def test_an_api_begins_again_when_its_connection_is_ended_while_it_starts(
    settings: Settings, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    endings = iter([True])

    async def check(connection: Connection) -> None:
        if next(endings, False):
            await connection.execute("SELECT pg_terminate_backend(pg_backend_pid())")
        await schema.check(connection)

    monkeypatch.setattr(server, "schema", SimpleNamespace(check=check))
    assert await server._fitting(settings) == settings
    assert next(endings, None) is None


async def test_a_database_that_is_away_is_not_judged(settings: Settings) -> None:
    away = Database(fixed("postgresql://nobody@127.0.0.1:1/none"), schema="outlast", application="tests")
    with pytest.raises(Unavailable):
        await fitness.check_sessions(away)
    with pytest.raises(Unavailable):
        await fitness.with_a_tail_that_works(settings, away)


@pytest.mark.parametrize("part", ["api", "worker"])
async def test_a_part_ends_with_a_sentence_rather_than_half_work(part: str, settings: Settings, redis_url: str) -> None:
    async with pooled_by_transaction(settings.required_database_url()) as url:
        said, code = await ended(part, url, redis_url)
    assert code == 1
    assert b"pool_mode = session" in said and b"Traceback" not in said


TOO_OLD = "PostgreSQL 13.4 is too old: Outlast needs 14 or newer."


@pytest.mark.parametrize("part", ["api", "worker", "migrate", "doctor"])
async def test_a_server_that_is_too_old_is_refused_by_name(part: str, redis_url: str) -> None:
    async with a_server_of_version("13.4") as url:
        said, code = await ended(part, url, redis_url)
    assert code == 1
    assert TOO_OLD.encode() in said and b"Traceback" not in said
    assert part != "doctor" or b"Upgrade the server to PostgreSQL 14 or newer." in said


async def test_work_on_a_pool_does_not_wait_for_a_server_that_is_too_old_to_become_newer() -> None:
    async with (
        a_server_of_version("9.6.24") as url,
        Database(fixed(url), schema="outlast", application="tests").pooled(max_connections=1) as database,
    ):
        with pytest.raises(Unfit, match=re.escape("PostgreSQL 9.6.24 is too old")):
            await database.run(lambda c: c.execute("SELECT 1"), patience_seconds=60)


async def ended(part: str, url: str, redis_url: str) -> tuple[bytes, int | None]:
    """What a part says until it ends, and its exit code."""
    env = {**os.environ, "DATABASE_URL": url, "REDIS_URL": redis_url, "OUTLAST_AGENTS": "test=tests.support.adder:x"}
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "outlast.infra.cli", part, env=env, stdout=-1, stderr=-2
    )
    async with asyncio.timeout(60):
        said, _ = await process.communicate()
    return said, process.returncode


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
