"""How often a run is tried, and where: beyond a worker's slots when another one had begun it, but not for ever."""

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


async def test_a_run_whose_workers_end_again_and_again_is_given_up_much_later(
    settings: Settings, database: Database
) -> None:
    attempts: list[int] = []

    async def waiting(_request: Request, context: Context):
        attempts.append(context.attempt)
        await asyncio.Event().wait()
        yield "never"

    few = settings.model_copy(update={"max_takeovers": 3, "drain_seconds": 0.0})
    async with serving(few, {"waiting": waiting}, workers=0) as service:
        run = await submitted(database, agent="waiting")
        for number in range(1, 4):
            async with worker(few, {"waiting": waiting}):

                async def begun(times: int = number) -> bool:
                    return len(attempts) == times

                await until(begun)
        async with worker(few, {"waiting": waiting}):

            async def ended() -> bool:
                response = await service.openai.responses.retrieve(response_id(run.run_id))
                return response.status == "failed"

            await until(ended)
        response = await service.openai.responses.retrieve(response_id(run.run_id))

    assert attempts == [1, 2, 3]
    assert response.error is not None and response.error.code == "max_attempts_exceeded"
    assert "OUTLAST_MAX_TAKEOVERS" in response.error.message and "worker_drained" in response.error.message
