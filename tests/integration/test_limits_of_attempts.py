"""How often a run is tried, and where: beyond a worker's slots when another one had begun it."""

from __future__ import annotations

import asyncio

import pytest

from outlast.agent import Context, Request
from outlast.shared.connections import Database
from outlast.shared.domain.ids import response_id
from outlast.shared.settings import Settings
from tests.support.runs import submitted
from tests.support.service import serving, worker
from tests.support.waiting import until


@pytest.mark.parametrize("begun", [True, False])
async def test_a_full_worker_takes_half_as_many_runs_more_if_another_had_begun_them(
    settings: Settings, database: Database, begun: bool
) -> None:
    running: set[str] = set()
    gate = asyncio.Event()

    async def waiting(_request: Request, context: Context):
        running.add(context.response_id)
        await gate.wait()
        yield "done"

    four = settings.model_copy(update={"concurrency": 4})
    async with serving(four, {"waiting": waiting}) as service:
        first = [(await service.openai.responses.create(input="x", background=True)).id for _ in range(4)]

        async def full() -> bool:
            return running == set(first)

        await until(full)
        for number in range(5):
            await submitted(database, agent="waiting", thread=f"conv_{number}")
        if begun:  # as if another worker had been lost
            await database.run(
                lambda c: c.execute(
                    "UPDATE runs SET attempt = 1, started_at = now(), deadline_at = now() + interval '1 hour' "
                    "WHERE status = 'queued'"
                )
            )
        expected = 6 if begun else 4
        dispatcher = service.workers[0].dispatcher

        async def looked_again() -> bool:
            await dispatcher.ring()
            return len(running) == expected

        await until(looked_again)
        for _ in range(3):
            await dispatcher.beat_once()
        assert len(running) == expected
        gate.set()

        async def all_ended() -> bool:
            cursor = await database.run(lambda c: c.execute("SELECT FROM runs WHERE status <> 'completed'"))
            return cursor.rowcount == 0

        await until(all_ended)


async def test_a_run_whose_workers_ended_a_thousand_times_goes_on(settings: Settings, database: Database) -> None:
    attempts: list[int] = []

    async def agent(_request: Request, context: Context):
        attempts.append(context.attempt)
        yield "done"

    async with serving(settings, {"agent": agent}, workers=0) as service:
        run = await submitted(database, agent="agent")
        await database.run(
            lambda c: c.execute(
                "WITH h AS (UPDATE run_heads SET attempt = 1000) UPDATE runs SET attempt = 1000, started_at = now(), "
                "last_cause = 'worker_drained', deadline_at = now() + interval '1 hour'"
            )
        )
        async with worker(service.settings, {"agent": agent}):

            async def ended() -> bool:
                response = await service.openai.responses.retrieve(response_id(run.run_id))
                return response.status == "completed"

            await until(ended)
    assert attempts == [1001]
