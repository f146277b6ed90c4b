"""Runs that ended long ago go, with what only they used, and nothing else does."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing, asynccontextmanager
from datetime import UTC, datetime
from typing import Any

import pytest

from outlast.shared.connections import PINNED_PLAN, Connection, Database, Dedicated
from outlast.shared.domain.runs import Lease, Run
from outlast.shared.doorbell import Doorbell
from outlast.shared.retention import Retention, prune
from outlast.shared.settings import Settings
from outlast.shared.store import pruning, runs, saves
from outlast.shared.store.pruning import Candidate, Expiry, Removed
from outlast.shared.sweep import Sweep
from outlast.worker.agents.langgraph.saver import FencedSaver
from tests.support.aging import CHECKPOINT_TABLES, age, finished, left, rows, somebody_waits
from tests.support.bulk import finish_many, work_on
from tests.support.rest import awake
from tests.support.runs import a_submission, claimed_one, finish, submitted
from tests.support.waiting import until

MONTH = Expiry(30 * 86_400)


@pytest.fixture
def retention(settings: Settings, database: Database) -> Retention:
    return Retention(database, settings)


@asynccontextmanager
async def pinned(database: Database) -> AsyncGenerator[Dedicated]:
    connection = database.dedicated(**PINNED_PLAN)
    try:
        yield connection
    finally:
        await connection.close()


async def prune_all(database: Database, expiry: Expiry = MONTH) -> Removed:
    async with pinned(database) as connection, aclosing(prune(connection, expiry, rest=0)) as batches:
        return sum([removed async for removed in batches if removed], Removed())


def a_checkpoint(number: int) -> Any:
    return {
        "v": 4, "id": f"1f000000-0000-6000-8000-{number:012}", "ts": "", "channel_values": {"messages": [number]},
        "channel_versions": {"messages": str(number)}, "versions_seen": {}, "updated_channels": None,
    }  # fmt: skip


async def checkpointed(database: Database, run: Run, number: int = 1) -> None:
    """A checkpoint of the run's thread, as a graph of it would write."""
    saver = FencedSaver(database, Lease(run.run_id, run.attempt))
    config: Any = {"configurable": {"thread_id": str(run.thread_id), "checkpoint_ns": ""}}
    stored = await saver.aput(config, a_checkpoint(number), {}, {"messages": str(number)})
    await saver.aput_writes(stored, [("messages", "x")], "task")


async def ended_graph_run(database: Database, *, days: float = 0, number: int = 1, **changes: Any) -> Run:
    await submitted(database, **changes)
    run = await claimed_one(database)
    await checkpointed(database, run, number)
    await finish(database, run, run.last_seq + 1)
    await age(database, [run.run_id], days)
    return run


# -- what goes ---------------------------------------------------------------------------------------------------------


async def test_old_runs_go_with_all_that_was_theirs_and_younger_ones_stay(
    database: Database, retention: Retention
) -> None:
    await submitted(database)
    saved = await claimed_one(database)
    assert await database.run(lambda c: saves.save(c, Lease(saved.run_id, 1), saves.Saved(1, "{}")))
    await finish(database, saved, saved.last_seq + 1)
    await age(database, [saved.run_id], 31)
    assert set(await rows(database)) == {"threads", "runs", "run_heads", "run_events", "run_saves"}

    old = await finished(database, days=30.1)
    young = await finished(database, days=29.9)
    await submitted(database)
    running = await claimed_one(database)
    await submitted(database)

    removed = await retention.prune_once()
    assert (removed.runs, removed.threads) == (2, 2)
    assert await left(database, saved, old, young, running) == [False, False, True, True]
    assert await rows(database, "threads", "runs", "run_leases", "run_heads", "run_saves") == {
        "threads": 3, "runs": 3, "run_leases": 1, "run_heads": 3
    }  # fmt: skip


async def test_zero_days_keep_runs_for_ever(database: Database, settings: Settings) -> None:
    old = await finished(database, days=10_000)
    await Retention(database, settings.model_copy(update={"retention_days": 0.0})).prune_once()

    assert await left(database, old) == [True]


async def test_runs_that_were_not_to_be_stored_go_after_minutes(database: Database, retention: Retention) -> None:
    ended = await finished(database, store=False, days=601 / 86_400)
    fresh = await finished(database, store=False, days=500 / 86_400)
    stored = await finished(database, days=601 / 86_400)
    await submitted(database, store=False)
    running = await claimed_one(database)
    await retention.prune_once()

    assert await left(database, ended, fresh, stored, running) == [False, True, True, True]


async def test_only_runs_with_the_status_and_of_the_agent_that_are_asked_for(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pruning, "BATCH_RUNS", 2)
    others = [await finished(database, days=31) for _ in range(5)]
    mine = await finished(database, days=31, agent="mine")
    others += [await finished(database, days=31) for _ in range(5)]

    assert (await prune_all(database, Expiry(MONTH.seconds, agent="mine"))).runs == 1
    assert await left(database, mine, *others) == [False] + [True] * 10


# -- threads and their checkpoints -------------------------------------------------------------------------------------


async def test_a_threads_checkpoints_go_with_its_last_run(database: Database) -> None:
    old = await ended_graph_run(database, days=40, thread="c")
    young = await ended_graph_run(database, days=20, thread="c", number=2)
    other = await ended_graph_run(database, days=20, thread="another")
    assert old.thread_id == young.thread_id
    before = await rows(database, "threads", *CHECKPOINT_TABLES)
    assert before == {"threads": 2, "checkpoints": 3, "checkpoint_blobs": 3, "checkpoint_writes": 3}

    assert (await prune_all(database)).runs == 1
    assert await left(database, old, young) == [False, True]
    assert await rows(database, "threads", *CHECKPOINT_TABLES) == before

    await age(database, [young.run_id], 20)
    removed = await prune_all(database)
    assert (removed.runs, removed.threads, removed.checkpoints) == (1, 1, 2)
    assert await rows(database, "threads", *CHECKPOINT_TABLES) == dict.fromkeys(before, 1)
    assert await left(database, other) == [True]


async def test_runs_of_one_thread_may_go_in_different_batches(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pruning, "BATCH_RUNS", 2)
    for number in range(5):
        await ended_graph_run(database, days=31 + number, thread="c", number=number)
    removed = await prune_all(database)

    assert (removed.runs, removed.threads, removed.checkpoints) == (5, 1, 5)
    assert await rows(database) == {}


async def test_a_run_that_a_waiting_one_goes_on_from_stays_until_that_one_has_ended(database: Database) -> None:
    first = await ended_graph_run(database, days=40, thread="c")
    second = await ended_graph_run(database, days=40, thread="c", number=2)
    await submitted(database, thread="c", previous_run_id=first.run_id)
    await submitted(database, thread="c", previous_run_id=second.run_id)  # it waits for the one before
    await prune_all(database)
    assert await left(database, first, second) == [True, True]

    fork = await claimed_one(database)
    await prune_all(database)
    assert await left(database, first, second) == [True, True]
    assert await database.run(lambda c: runs.checkpoint_of(c, first.run_id))

    await finish(database, fork, fork.last_seq + 1)
    await prune_all(database)
    assert await left(database, first, second, fork) == [False, True, True]
    assert await database.run(lambda c: runs.checkpoint_of(c, first.run_id)) is None


async def test_without_langgraphs_tables_there_is_nothing_of_them_to_remove(database: Database) -> None:
    """Tables of that name elsewhere are somebody else's."""
    run = await finished(database, days=31)
    for table in CHECKPOINT_TABLES:
        await database.run(lambda c, table=table: c.execute(f"ALTER TABLE {table} SET SCHEMA public".encode()))
    await database.run(
        lambda c: c.execute(
            "INSERT INTO public.checkpoints (thread_id, checkpoint_id, checkpoint) VALUES (%s, 'x', '{}')",
            (str(run.thread_id),),
        )
    )

    assert (await prune_all(database)).checkpoints == 0
    assert await left(database, run) == [False]
    assert await rows(database, "public.checkpoints") == {"public.checkpoints": 1}


# -- how it goes -------------------------------------------------------------------------------------------------------


async def test_it_can_stop_after_any_batch_and_goes_on_later(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pruning, "BATCH_RUNS", 3)
    for _ in range(8):
        await finished(database, days=31)
    async with pinned(database) as connection, aclosing(prune(connection, MONTH, rest=0)) as batches:
        assert (await anext(batches)).runs == 3  # type: ignore[union-attr]
    assert await rows(database, "threads", "runs", "run_heads") == {"threads": 5, "runs": 5, "run_heads": 5}

    assert (await prune_all(database)).runs == 5
    assert await rows(database) == {}


async def test_runs_that_ended_at_the_same_moment_are_no_trouble(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pruning, "BATCH_RUNS", 2)
    ended = [await finished(database) for _ in range(5)]
    await database.run(
        lambda c: c.execute("UPDATE runs SET finished_at = %s", (datetime(2020, 1, 1, tzinfo=UTC),)),
    )

    assert (await prune_all(database)).runs == 5
    assert await left(database, *ended) == [False] * 5


async def test_one_process_prunes_at_a_time(database: Database) -> None:
    run = await finished(database, days=31)
    async with pinned(database) as mine, pinned(database) as other:

        async def beside(connection: Connection) -> None:
            async with connection.transaction():
                assert await pruning.prune_next(connection, Expiry(40 * 86_400), None) is not None
                assert await other.run(lambda c: pruning.prune_next(c, MONTH, None)) is None

        await mine.run(beside)
        assert await left(database, run) == [True]
        assert await other.run(lambda c: pruning.prune_next(c, MONTH, None))
    assert await left(database, run) == [False]


async def test_pruners_at_once_leave_nothing_and_remove_nothing_twice(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pruning, "BATCH_RUNS", 3)
    ended = [await ended_graph_run(database, days=31, thread=f"c{number % 7}", number=number) for number in range(21)]

    async def one() -> int:
        return (await prune_all(database)).runs

    async def by_hand(run: Run) -> int:
        return int(await database.run(lambda c: runs.delete(c, run.run_id, run.principal)))

    counts = await asyncio.gather(one(), one(), one(), *(by_hand(run) for run in ended[::2]))
    await prune_all(database)  # what one had held may have been passed over by another
    assert await rows(database) == {}
    assert sum(counts) <= 21


async def test_what_others_hold_is_left_for_another_time(database: Database) -> None:
    held = await finished(database, days=31, thread="held")
    free = await finished(database, days=31)
    connection = await database.connect()
    async with connection, connection.transaction():
        await connection.execute("SELECT FROM threads WHERE name = 'held' FOR NO KEY UPDATE")
        assert (await prune_all(database)).runs == 1
    assert await left(database, held, free) == [True, False]

    assert (await prune_all(database)).runs == 1
    assert await rows(database) == {}


async def test_a_thread_whose_last_two_runs_are_removed_at_once_goes(database: Database) -> None:
    """The one that comes second sees that there is nothing left, because it had to wait for the first."""
    old = await ended_graph_run(database, days=31, thread="c")
    young = await ended_graph_run(database, thread="c", number=2)
    connection = await database.connect()
    async with connection, connection.transaction():
        await connection.execute("SELECT FROM threads FOR UPDATE")
        await pruning.remove(connection, [old.run_id], [old.thread_id])
        deleting = asyncio.create_task(database.run(lambda c: runs.delete(c, young.run_id, young.principal)))
        await until(lambda: somebody_waits(database))
    assert await deleting
    assert await rows(database) == {}


async def test_a_run_submitted_to_a_thread_that_goes_gets_a_new_one(database: Database) -> None:
    old = await finished(database, days=31, thread="c")
    connection = await database.connect()
    async with connection, connection.transaction():
        await pruning.prune_next(connection, MONTH, None)
        submitting = asyncio.create_task(submitted(database, thread="c"))
        await until(lambda: somebody_waits(database))
    await submitting
    run = await claimed_one(database)
    assert (run.thread, run.run_id) == ("c", submitting.result().run_id)
    assert run.thread_id != old.thread_id
    assert await left(database, old) == [False]


async def test_the_leader_of_the_sweep_sets_it_going(
    settings: Settings, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("outlast.shared.retention._LOOK_SECONDS", 0.0)
    run = await finished(database, days=31)
    sweep = Sweep(database, settings, Doorbell(settings.required_redis_url(), settings.db_schema), awake(settings))
    connection = await database.connect()
    try:
        async with connection, connection.transaction():
            await connection.execute("SELECT pg_advisory_xact_lock(hashtextextended(current_schema() || '.sweep', 0))")
            assert not (await sweep.look()).led
            assert sweep._retention._pruning is None  # type: ignore[reportPrivateUsage]
        assert (await sweep.look()).led

        async def gone() -> bool:
            return await left(database, run) == [False]

        await until(gone)
    finally:
        await sweep.close()


async def test_a_pruner_that_is_stopped_in_the_middle_has_removed_nothing_by_half(
    settings: Settings, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("outlast.shared.retention._LOOK_SECONDS", 0.0)
    await ended_graph_run(database, days=31)
    before = await rows(database)
    retention = Retention(database, settings)
    connection = await database.connect()
    async with connection, connection.transaction():
        await connection.execute("LOCK TABLE threads IN SHARE MODE")  # what is removed last waits
        retention.start_if_due()
        await until(lambda: somebody_waits(database))
        await retention.close()
    assert await rows(database) == before


# -- how much work it is -----------------------------------------------------------------------------------------------


def a_candidate(events: int, *, wanted: bool = True) -> Candidate:
    submission = a_submission()
    return Candidate(datetime.now(UTC), submission.run_id, submission.thread_id, events, wanted)


@pytest.mark.parametrize(
    ("events", "taken"),
    [([10] * 5, 5), ([10**6], 1), ([10**6, 1], 1), ([1, 10**6], 1), ([30_000, 20_000, 1], 2), ([], 0)],
)
def test_a_batch_has_so_many_events_or_one_run(events: list[int], taken: int) -> None:
    assert len(pruning.within_events([a_candidate(count) for count in events])) == taken


def test_events_of_runs_that_stay_do_not_count() -> None:
    found = [a_candidate(10**6, wanted=False), a_candidate(10**6, wanted=False), a_candidate(1)]
    assert pruning.within_events(found) == found


async def test_a_run_of_many_events_goes_in_slices(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pruning, "_SLICE_EVENTS", 100)
    run = await finished(database, days=31)
    await database.run(
        lambda c: c.execute(
            """INSERT INTO run_events (run_id, first_seq, last_seq, data)
               SELECT %s, n * 10 + 1, n * 10 + 10, repeat('x', 100) FROM generate_series(1, 500) n""",
            (run.run_id,),
        )
    )
    await database.run(lambda c: c.execute("UPDATE run_heads SET last_seq = 5010"))
    removed = await prune_all(database)

    assert removed.runs == 1 and removed.event_bytes > 50_000
    assert await rows(database) == {}


@pytest.fixture
async def many(database: Database) -> AsyncGenerator[Connection]:
    """One thread with 600 finished runs, and 600 threads with one, in tables that were never analysed.

    Gives the connection that made them, which has told of its work.
    """
    await finished(database, days=31, thread="long")
    for table in ("threads", "runs", "run_heads", "run_events"):
        await database.run(
            lambda c, table=table: c.execute(f"ALTER TABLE {table} SET (autovacuum_enabled = false)".encode())
        )
    async with await database.connect() as connection:
        await finish_many(connection, 1200)
        await work_on(connection, "runs")
        yield connection


async def test_no_table_is_read_from_one_end_to_the_other(database: Database, many: Connection) -> None:
    tables = ("runs", "run_heads", "run_events", "threads", *CHECKPOINT_TABLES)
    graph = await ended_graph_run(database, days=31)
    young = await finished(database)

    async def scans() -> dict[str, int]:
        return {table: (await work_on(many, table))[0] for table in tables}

    before = await scans()
    async with many.transaction():
        await many.execute("SELECT FROM threads WHERE id = %s FOR UPDATE", (graph.thread_id,))
        await pruning.remove(many, [graph.run_id], [graph.thread_id])
    assert await runs.delete(many, young.run_id, young.principal)
    for name in PINNED_PLAN:
        await many.execute(f"SET {name} = off".encode())
    batch = await pruning.prune_next(many, MONTH, None)
    assert batch and batch.removed.runs == pruning.BATCH_RUNS
    assert await scans() == before
