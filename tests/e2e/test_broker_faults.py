"""A worker whose broker refuses or says nothing starts, works and ends all the same."""

from __future__ import annotations

from collections.abc import Generator
from pathlib import Path

import pytest
import redis

from outlast.shared.settings import Settings
from tests.support.processes import Parts, parts
from tests.support.proxy import Mode, Proxy
from tests.support.service import serving
from tests.support.waiting import until

EXIT_SECONDS = 15  # what it waits for an answer of the broker, and what a busy machine takes
BELLS = "{outlast}:outlast.default"


@pytest.fixture
def way(redis_url: str) -> Generator[Proxy]:
    """The worker's way to the broker."""
    with Proxy(redis_url) as proxy:
        yield proxy


@pytest.fixture
def started(database_url: str, way: Proxy, tmp_path: Path) -> Generator[Parts]:
    env = {
        "DATABASE_URL": database_url,
        "REDIS_URL": way.url,
        "OUTLAST_AGENTS": "count=tests.e2e.agents:count",
        "OUTLAST_CHILDREN": "1",
        "OUTLAST_LOG_LEVEL": "warning",
    }
    with parts(env, tmp_path) as starting:
        yield starting


async def test_a_worker_serves_and_ends_while_its_broker_is_away(
    started: Parts, way: Proxy, settings: Settings, redis_url: str
) -> None:
    way.mode = Mode.REFUSE
    worker = started.launch(["worker"], {})
    with redis.Redis.from_url(redis_url) as broker:
        async with serving(settings, {"count": None}, workers=0) as service:
            create = service.openai.with_options(timeout=60).responses.create
            refused = (await create(input="3")).output_text
            waiting = broker.llen(BELLS)

            way.mode = Mode.PASS

            async def heard() -> bool:
                return broker.llen(BELLS) == 0

            await until(heard)
            broker.flushall()
            flushed = (await create(input="3")).output_text

            way.mode = Mode.BLACK_HOLE
            silent = (await create(input="3")).output_text
            code = worker.stop(seconds=EXIT_SECONDS)

    assert waiting, "no bell was rung that the worker could not hear"
    assert [refused, flushed, silent] == ["0 1 2 "] * 3
    assert code == 0, worker.said
    assert "Traceback" not in worker.said
