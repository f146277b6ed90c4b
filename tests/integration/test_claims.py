"""Claiming: fair, in order, within the limits on running runs, and as cheap on a long queue as on a short one."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

import pytest

from outlast.shared.connections import Connection, Database, fixed
from outlast.shared.domain.runs import Lease
from outlast.shared.store import claims, leases, runs
from outlast.shared.store.claims import RunningLimits
from tests.support.bulk import fill, work_on
from tests.support.runs import finish, submitted

QUEUED = 100_000


async def claim(connection: Connection, limit: int = 10, **options: Any) -> list[Lease]:
    options = {"queues": ["default"], "owner": "test", "lease_seconds": 60} | options
    return await claims.claim(connection, limit=limit, **options)


async def principals(database: Database, limit: int, **options: Any) -> list[str]:
    """Claim, and say whose runs they are, in the order in which they were given."""
    taken = await database.run(lambda c: claim(c, limit, **options))
    found = {run.run_id: run for run in await database.run(lambda c: runs.read_held(c, taken))}
    return [found[lease.run_id].principal for lease in taken]


@pytest.mark.parametrize("analysed", [True, False])
@pytest.mark.parametrize("limits", [RunningLimits(), RunningLimits(per_principal=QUEUED, per_agent={"*": QUEUED})])
async def test_a_claim_touches_no_more_rows_of_a_long_queue_than_it_takes(
    database_url: str, analysed: bool, limits: RunningLimits
) -> None:
    database = Database(fixed(database_url), schema="outlast", application="tests", pin_plan=True)
    connection = await database.connect(statement_timeout="60s")
    async with connection:
        if analysed:
            await connection.execute("ANALYZE runs")
        for _ in range(7):  # the server has settled on a plan for any parameters, made while there was nothing
            await claim(connection, running_limits=limits)
        await fill(connection, QUEUED)
        before = await work_on(connection, "runs")

        taken = await claim(connection, 16, running_limits=limits)

        scans, rows = (after - then for after, then in zip(await work_on(connection, "runs"), before, strict=True))
    assert len(taken) == 16
    assert scans == 0
    assert rows <= 10 * len(taken)


async def test_ten_thousand_runs_of_one_principal_delay_anothers_by_one_slot(database: Database) -> None:
    await database.run(lambda c: fill(c, 10_000))
    running = await principals(database, 3)

    await submitted(database, principal="late")
    assert running == ["busy"] * 3

    assert "late" in await principals(database, 2)


async def test_limits_hold_over_all_workers_and_leave_the_slots_to_others(database: Database) -> None:
    limits = RunningLimits(per_principal=2, per_agent={"slow": 3})
    for principal in ("a", "b"):
        for agent in ("slow", "slow", "quick", "quick"):
            await submitted(database, principal=principal, agent=agent)
    await submitted(database, principal="c", agent="slow")

    async def work() -> list[Lease]:
        mine: list[Lease] = []
        while taken := await database.run(lambda c: claim(c, 3, running_limits=limits)):
            mine += taken
        return mine

    taken = [lease for mine in await asyncio.gather(*(work() for _ in range(4))) for lease in mine]

    held = await database.run(lambda c: runs.read_held(c, taken))
    by_principal, by_agent = Counter(run.principal for run in held), Counter(run.agent for run in held)
    assert by_principal == {"a": 2, "b": 2, "c": 1}
    assert by_agent["slow"] == 3

    # Each end makes room for one more.
    for run in [run for run in held if run.principal == "a"]:
        assert await finish(database, run, 2)
        assert len(await principals(database, 5, running_limits=limits)) == 1


async def test_a_limit_for_each_agent_does_not_count_the_others(database: Database) -> None:
    for agent in ("one", "one", "two", "two", "free", "free"):
        await submitted(database, agent=agent)

    taken = await database.run(lambda c: claim(c, 9, running_limits=RunningLimits(per_agent={"*": 1, "free": 2})))

    held = await database.run(lambda c: runs.read_held(c, taken))
    assert Counter(run.agent for run in held) == {"one": 1, "two": 1, "free": 2}


async def test_a_released_run_is_next_and_what_its_attempt_cost_is_kept(database: Database) -> None:
    first = await submitted(database)
    for _ in range(3):
        await submitted(database)
    [lease] = await database.run(lambda c: claim(c, 1))
    await database.run(lambda c: leases.release(c, [lease], cause="child_exited_1", charge=True))

    [again] = await database.run(lambda c: claim(c, 1))
    [run] = await database.run(lambda c: runs.read_held(c, [again]))

    assert (run.run_id, run.attempt, run.charged_attempts, run.last_cause) == (first.run_id, 2, 1, "child_exited_1")
    assert await database.run(lambda c: runs.read_held(c, [lease])) == []


async def test_queues_are_served_in_the_order_they_are_named(database: Database) -> None:
    for queue in ("slow", "quick", "other"):
        for _ in range(2):
            await submitted(database, queue=queue, principal=queue)

    assert await principals(database, 3, queues=["quick", "slow"]) == ["quick", "quick", "slow"]
    assert await principals(database, 9, queues=["quick", "slow"]) == ["slow"]
