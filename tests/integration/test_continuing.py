"""What a run that continues another one reads of it: its checkpoint, its thread, and whose runs are in it."""

from __future__ import annotations

import asyncio
from dataclasses import replace

from outlast.shared.connections import Database
from outlast.shared.domain.ids import new_uuid, parse_response_id
from outlast.shared.domain.runs import Lease, RunStatus
from outlast.shared.settings import Settings
from outlast.shared.store import runs, threads
from tests.support.runs import an_ending, claimed_one, finish, submitted
from tests.support.service import gated_by, serving


async def test_a_finished_run_keeps_the_checkpoint_it_ended_with(database: Database) -> None:
    submission = await submitted(database, thread="t")
    before = await database.run(lambda c: runs.checkpoint_of(c, submission.run_id))
    run = await claimed_one(database)
    ending = replace(an_ending(2), checkpoint_id="1f0-checkpoint")
    assert await database.run(lambda c: runs.finish(c, database.schema, Lease(run.run_id, run.attempt), ending))

    assert before == runs.Continuation(RunStatus.QUEUED, "t", None)
    assert await database.run(lambda c: runs.checkpoint_of(c, submission.run_id)) == runs.Continuation(
        RunStatus.COMPLETED, "t", "1f0-checkpoint"
    )
    assert await database.run(lambda c: runs.checkpoint_of(c, new_uuid())) is None


async def test_a_run_without_checkpoints_has_none(database: Database) -> None:
    await submitted(database, thread="t")
    run = await claimed_one(database)
    assert await finish(database, run, 2)

    found = await database.run(lambda c: runs.checkpoint_of(c, run.run_id))
    assert found is not None and found.checkpoint_id is None


async def test_a_worker_knows_which_run_is_continued(database: Database) -> None:
    first = await submitted(database, thread="t")
    await finish(database, await claimed_one(database), 2)
    await submitted(database, thread="t", previous_run_id=first.run_id)

    assert (await claimed_one(database)).previous_run_id == first.run_id


async def test_the_runs_of_a_thread_are_told_from_others(database: Database) -> None:
    mine = [(await submitted(database, thread="t")).run_id for _ in range(3)]
    elsewhere = (await submitted(database, thread="u")).run_id
    another = (await submitted(database, thread="t", principal="somebody")).run_id

    async def of_thread(*run_ids: object) -> set[object]:
        return set(await database.run(lambda c: threads.runs_of_thread(c, "t", "anonymous", run_ids)))  # type: ignore[arg-type]

    assert await of_thread(mine[0], mine[2], elsewhere, another, new_uuid()) == {mine[0], mine[2]}
    assert await of_thread() == set()


async def test_the_previous_response_of_a_request_is_stored_with_its_run(
    settings: Settings, database: Database
) -> None:
    async with serving(settings, {"test": gated_by(asyncio.Event())}, workers=0) as service:
        first = await service.openai.responses.create(input="1", background=True)
        await finish(database, await claimed_one(database), 2)
        await service.openai.responses.create(input="2", background=True, previous_response_id=first.id)

    second = await claimed_one(database)
    assert second.previous_run_id == parse_response_id(first.id)
    assert second.thread == first.conversation.id  # type: ignore[union-attr]
