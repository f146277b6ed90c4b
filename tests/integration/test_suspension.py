"""Runs whose leases nobody renews are suspended where they are executed, before anybody else can have them."""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress

import pytest

from outlast.agent import Context, Request
from outlast.shared.connections import Database
from outlast.shared.domain.runs import Lease
from outlast.shared.settings import Settings, SettingsError, load
from outlast.worker.agents.function import FunctionAgent
from outlast.worker.attempt import Outcome
from outlast.worker.lease_clock import LeaseClock
from outlast.worker.runtime import open_runtime
from tests.support.log import check_log, stored_lines
from tests.support.proxy import Mode, Proxy
from tests.support.runs import claimed_one, submitted
from tests.support.service import serving, worker
from tests.support.waiting import until


async def until_set(event: asyncio.Event, seconds: float) -> None:
    with suppress(TimeoutError):
        await asyncio.wait_for(event.wait(), seconds)


class Counting:
    """An agent that says something until it is told to end, and knows when it was stopped."""

    def __init__(self) -> None:
        self.attempts: list[int] = []
        self.stopped: list[int] = []
        self.end = asyncio.Event()

    async def agent(self, _request: Request, context: Context):
        self.attempts.append(context.attempt)
        yield f"attempt {context.attempt}"
        try:
            while not self.end.is_set():
                await until_set(self.end, 0.02)
                yield "."
        except asyncio.CancelledError:
            self.stopped.append(context.attempt)
            raise


async def test_an_attempt_whose_lease_is_renewed_no_more_ends_before_the_lease(
    settings: Settings, database: Database
) -> None:
    counting, clock = Counting(), LeaseClock()
    ends: list[tuple[Lease, Outcome]] = []
    brief = settings.model_copy(update={"self_fence_seconds": 0.5})
    run = await submitted(database, agent="counting")
    claimed_at = time.monotonic()
    claimed = await claimed_one(database)
    lease = Lease(claimed.run_id, claimed.attempt)
    agents = {"counting": FunctionAgent(counting.agent)}

    def ended(lease: Lease, outcome: Outcome) -> None:
        ends.append((lease, outcome))

    async with open_runtime(brief, agents, ended, clock) as runtime:
        runtime.start([lease], claimed_at)
        renewed_until = time.monotonic() + 1.5

        async def renewed_long_enough() -> bool:
            clock.renewed(time.monotonic())
            return time.monotonic() > renewed_until

        await until(renewed_long_enough)
        assert counting.stopped == []

        async def over() -> bool:
            return bool(ends)

        await until(over)

    assert counting.stopped == [1]
    assert (ends[0][0], ends[0][1].status) == (lease, None)
    statuses = await database.run(lambda c: c.execute("SELECT status, attempt, charged_attempts FROM runs"))
    assert await statuses.fetchall() == [("in_progress", 1, 0)], "nobody else's business"
    assert run.run_id == lease.run_id


async def test_a_lease_that_was_given_late_is_not_used(settings: Settings, database: Database) -> None:
    """The parent was stopped between its claim and telling the child."""
    counting, clock = Counting(), LeaseClock()
    ends: list[Lease] = []
    await submitted(database, agent="counting")
    claimed = await claimed_one(database)
    brief = settings.model_copy(update={"self_fence_seconds": 0.5})
    agents = {"counting": FunctionAgent(counting.agent)}
    async with open_runtime(brief, agents, lambda lease, _: ends.append(lease), clock) as runtime:
        runtime.start([Lease(claimed.run_id, claimed.attempt)], time.monotonic() - 10)

        async def over() -> bool:
            return bool(ends)

        await until(over)

    assert counting.attempts == []


async def test_a_lease_that_was_renewed_before_the_child_read_of_it_is_used(
    settings: Settings, database: Database
) -> None:
    """The child was short of time: it reads the message late, when its parent has renewed the lease already."""
    counting, clock = Counting(), LeaseClock()
    await submitted(database, agent="counting")
    claimed = await claimed_one(database)
    lease, now = Lease(claimed.run_id, claimed.attempt), time.monotonic()
    brief = settings.model_copy(update={"self_fence_seconds": 60.0})
    async with open_runtime(brief, {"counting": FunctionAgent(counting.agent)}, lambda *_: None, clock) as runtime:
        clock.renewed(now - 10)
        runtime.start([lease], now - 100, now - 11)
        runtime.suspend_uncertain()

        async def begun() -> bool:
            return counting.attempts == [1]

        await until(begun)
        runtime.start([lease], now - 100, now - 9)
        runtime.suspend_uncertain()

        async def stopped() -> bool:
            return counting.stopped == [1]

        await until(stopped)


@pytest.mark.parametrize("how", [Mode.BLACK_HOLE, Mode.REFUSE])
async def test_a_worker_cut_off_for_longer_than_its_leases_goes_on_where_nobody_took_over(
    settings: Settings, database: Database, how: Mode
) -> None:
    """The only worker: nothing is lost or charged, and nothing was executed while its leases were uncertain."""
    counting = Counting()
    async with (
        Proxy(settings.required_database_url()) as proxy,
        serving(settings, {"counting": counting.agent}, workers=0) as service,
    ):
        cut_off = load(
            database_url=proxy.url,
            redis_url=settings.required_redis_url(),
            agents={"counting": "tests:counting"},
            lease_seconds=1.5,
            beat_seconds=0.2,
            sweep_seconds=0.1,
            drain_seconds=0.1,
        )
        async with worker(cut_off, {"counting": counting.agent}):
            run = (await service.openai.responses.create(input="x", model="counting", background=True)).id

            async def begun() -> bool:
                return counting.attempts == [1]

            await until(begun)
            proxy.mode = how
            if how is Mode.REFUSE:
                proxy.cut()

            async def suspended() -> bool:
                return counting.stopped == [1]

            await until(suspended)
            away_until = time.monotonic() + 2 * cut_off.lease_seconds

            async def long_away() -> bool:
                return time.monotonic() > away_until

            await until(long_away)
            assert counting.attempts == [1]
            proxy.mode = Mode.PASS

            async def resumed() -> bool:
                return len(counting.attempts) > 1

            await until(resumed)
            counting.end.set()

            async def completed() -> bool:
                return (await service.openai.responses.retrieve(run)).status == "completed"

            await until(completed)
        lines = await stored_lines(database, run)
        charged = await database.run(lambda c: c.execute("SELECT charged_attempts FROM runs"))
        assert await charged.fetchall() == [(0,)]
    events = check_log(lines)
    [said] = events[-1]["response"]["output"][-1]["content"]
    assert said["text"].startswith(f"attempt {counting.attempts[-1]}")
    # A claim whose answer was held up for as long as a lease is not used: its run is claimed once more.
    assert counting.attempts in ([1, 2], [1, 2, 3], [1, 3])


@pytest.mark.parametrize("seconds", ["0.3", "6"])
def test_the_self_fence_lies_between_two_beats_and_the_lease(monkeypatch: pytest.MonkeyPatch, seconds: str) -> None:
    monkeypatch.setenv("OUTLAST_SELF_FENCE_SECONDS", seconds)
    with pytest.raises(SettingsError, match="OUTLAST_SELF_FENCE_SECONDS"):
        load()
