"""What a deleted response leaves behind: nothing that only it used, and nothing that comes later from its attempt."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from typing import Any

import pytest

from outlast.shared.connections import Database
from outlast.shared.domain.errors import LeaseLost
from outlast.shared.domain.runs import Lease, Run
from outlast.shared.settings import Settings
from outlast.shared.store import runs, saves
from outlast.worker.agents.langgraph.saver import FencedSaver
from tests.integration.test_langgraph_threads import remembering, say
from tests.integration.test_retention import a_checkpoint, checkpointed
from tests.support.aging import CHECKPOINT_TABLES, rows, somebody_waits
from tests.support.runs import an_append, append, claimed_one, finish, submitted
from tests.support.service import Service, serving
from tests.support.waiting import until


@pytest.fixture
async def service(settings: Settings) -> AsyncGenerator[Service]:
    async with serving(settings, {"graph": remembering()}) as running:
        yield running


async def delete(database: Database, run: Run) -> bool:
    return await database.run(lambda c: runs.delete(c, run.run_id, run.principal))


# -- conversations -----------------------------------------------------------------------------------------------------


async def test_a_conversation_goes_with_its_last_response(service: Service, database: Database) -> None:
    first = await say(service, "a", conversation="c1")
    second = await say(service, "b", conversation="c1")
    kept = await say(service, "other", conversation="c2")
    whole = await rows(database, "threads", *CHECKPOINT_TABLES)
    await service.openai.responses.delete(first.id)
    assert await rows(database, "threads", *CHECKPOINT_TABLES) == whole

    third = await say(service, "c", conversation="c1")
    assert third.output_text == "a/b/c (2)"  # what was said is the conversation's, not the response's alone
    for response in (second, third):
        await service.openai.responses.delete(response.id)
    assert (await rows(database, "threads", "checkpoints"))["threads"] == 1
    assert (await say(service, "d", conversation="c1")).output_text == "d (0)"

    await service.openai.responses.delete(kept.id)
    assert (await say(service, "e", conversation="c2")).output_text == "e (0)"


async def test_a_response_that_forked_from_a_deleted_one_goes_on(service: Service) -> None:
    a = await say(service, "a")
    ab = await say(service, "b", previous_response_id=a.id)
    ac = await say(service, "c", previous_response_id=a.id)
    await service.openai.responses.delete(a.id)

    assert (await say(service, "d", previous_response_id=ab.id)).output_text == "a/b/d (2)"
    assert (await say(service, "e", previous_response_id=ac.id)).output_text == "a/c/e (2)"


# -- a run that goes on ------------------------------------------------------------------------------------------------


async def test_an_attempt_whose_run_is_deleted_leaves_no_row_behind(database: Database) -> None:
    await submitted(database)
    run = await claimed_one(database)
    lease = Lease(run.run_id, run.attempt)
    await checkpointed(database, run)
    await append(database, an_append(run, run.last_seq + 1))
    assert await database.run(lambda c: saves.save(c, lease, saves.Saved(1, "{}")))
    assert await delete(database, run)
    assert await rows(database) == {}

    saver = FencedSaver(database, lease)
    config: Any = {"configurable": {"thread_id": str(run.thread_id), "checkpoint_ns": "", "checkpoint_id": "x"}}
    with pytest.raises(LeaseLost):
        await saver.aput(config, a_checkpoint(2), {}, {"messages": "2"})
    with pytest.raises(LeaseLost):
        await saver.aput_writes(config, [("messages", "b")], "task")
    assert await append(database, an_append(run, run.last_seq + 2)) == set()
    assert not await database.run(lambda c: saves.save(c, lease, saves.Saved(1, "{}")))
    assert not await finish(database, run, run.last_seq + 2)
    assert await rows(database) == {}


async def test_a_checkpoint_that_is_being_written_is_waited_for_and_removed(database: Database) -> None:
    await submitted(database)
    run = await claimed_one(database)
    connection = await database.connect()
    async with connection, connection.transaction():
        await connection.execute("SELECT fence(%s, %s)", (run.run_id, run.attempt))
        deleting = asyncio.create_task(delete(database, run))
        await until(lambda: somebody_waits(database))
        await connection.execute(
            "INSERT INTO checkpoints (thread_id, checkpoint_id, checkpoint) VALUES (%s, 'x', '{}')",
            (str(run.thread_id),),
        )
    assert await deleting
    assert await rows(database) == {}


async def test_savers_that_write_while_their_runs_are_deleted_leave_nothing(database: Database) -> None:
    async def write_until_lost(run: Run) -> int:
        number = 0
        try:
            while True:
                number += 1
                await checkpointed(database, run, number)
        except LeaseLost:
            return number

    for _ in range(8):
        await submitted(database)
        run = await claimed_one(database)
        writing = [asyncio.create_task(write_until_lost(run)) for _ in range(3)]

        async def written() -> bool:
            return (await rows(database, "checkpoints")).get("checkpoints", 0) > 3

        await until(written)
        assert await delete(database, run)
        assert await rows(database) == {}
        assert min(await asyncio.gather(*writing)) > 0
        assert await rows(database) == {}


async def test_a_deleted_graph_run_that_goes_on_leaves_nothing(settings: Settings, database: Database) -> None:
    from_model, gate = asyncio.Event(), asyncio.Event()

    async def slow(state: Any) -> dict[str, Any]:
        from_model.set()
        try:
            await gate.wait()
        except asyncio.CancelledError:
            gate.set()  # it goes on all the same
        return {}

    graph = remembering().add_node("slow", slow).add_edge("agent", "slow")
    async with serving(settings, {"graph": graph}) as service:
        response = await service.openai.responses.create(input="a", background=True, conversation="c1")
        await from_model.wait()
        assert (await rows(database, "checkpoints"))["checkpoints"] > 0
        await service.openai.responses.delete(response.id)
        assert await rows(database, "threads", "runs", *CHECKPOINT_TABLES) == {}
        async with asyncio.timeout(20):
            await gate.wait()
    assert await rows(database, "threads", "runs", "run_events", *CHECKPOINT_TABLES) == {}
