"""The database goes away and comes back in mid-stream: the stream continues, complete."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncGenerator
from pathlib import Path

import pytest

from outlast.agent import Context, Request
from outlast.infra.embedded import Postgres
from outlast.infra.migrate import migrate, shipped
from outlast.shared.connections import Database, fixed
from outlast.shared.settings import Settings, load
from tests.support.log import check_log, data_lines, stored_lines, streamed
from tests.support.service import serving
from tests.support.waiting import until

words: asyncio.Queue[str | None]


async def gated(_request: Request, _context: Context):
    while (word := await words.get()) is not None:
        yield word


@pytest.fixture
async def postgres(tmp_path: Path) -> AsyncGenerator[Postgres]:
    """A server of the test's own, to be restarted."""
    server = Postgres(tmp_path / "postgres", settings={"fsync": "off"})
    await asyncio.to_thread(server.start)
    await migrate(Database(fixed(server.url), schema="outlast", application="tests"), shipped())
    yield server
    await asyncio.to_thread(server.stop)


@pytest.fixture
def own_settings(postgres: Postgres, redis_url: str) -> Settings:
    return load(
        database_url=postgres.url, redis_url=redis_url, agents={"x": "tests:x"},
        beat_seconds=0.2, lease_seconds=30, poll_interval_seconds=0.2,
    )  # fmt: skip


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
async def test_a_stream_continues_complete_after_postgres_was_restarted(
    own_settings: Settings, postgres: Postgres, how: signal.Signals
) -> None:
    global words
    words = asyncio.Queue()
    async with serving(own_settings, {"gated": gated}, replicas=2) as service:
        run = (await service.openai.responses.create(input="x", background=True)).id
        viewers = [asyncio.create_task(streamed(replica.url, run)) for replica in service.replicas]
        for number in range(50):
            words.put_nowait(f"{number} ")
        database = service.replicas[0].services.database

        async def said() -> bool:
            return any('"49 "' in line for line in await stored_lines(database, run))

        await until(said)
        await asyncio.to_thread(postgres.stop if how is signal.SIGINT else postgres.kill)
        for number in range(50, 100):
            words.put_nowait(f"{number} ")
        await asyncio.to_thread(postgres.start)
        words.put_nowait(None)
        seen = [data_lines(await viewer) for viewer in viewers]
        lines = await stored_lines(database, run)

    assert seen == [lines] * 2
    said_at_all = "".join(e["delta"] for e in check_log(lines) if e["type"] == "response.output_text.delta")
    assert said_at_all == "".join(f"{number} " for number in range(100))
