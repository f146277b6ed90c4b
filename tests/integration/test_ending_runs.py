"""Runs end when they should: cancelled, out of time or expired, with their worker, against it or without one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import openai
import pytest
from redis.asyncio import Redis

from outlast.agent import Context, Request
from outlast.shared import endings
from outlast.shared.connections import Database
from outlast.shared.domain.ids import parse_response_id, response_id
from outlast.shared.domain.overdue import EndReason, Overdue
from outlast.shared.domain.runs import Lease, Run
from outlast.shared.settings import Settings
from outlast.shared.store import leases, overdue, runs
from tests.support.log import check_log, stored_lines
from tests.support.runs import claimed_one, submitted
from tests.support.service import Service, serving
from tests.support.waiting import until

LONG_SECONDS = 600.0


class Agents:
    """What agents do when they are told to end."""

    def __init__(self) -> None:
        self.started = asyncio.Event()
        self.tidying = asyncio.Event()
        self.let_go = asyncio.Event()

    async def obedient(self, _request: Request, _context: Context):
        yield "working "
        self.started.set()
        await asyncio.sleep(LONG_SECONDS)

    async def tidy(self, _request: Request, _context: Context):
        try:
            yield "working "
            self.started.set()
            await asyncio.sleep(LONG_SECONDS)
        finally:
            self.tidying.set()
            await self.let_go.wait()
            yield "tidied"

    async def deaf(self, _request: Request, _context: Context):
        yield "working "
        self.started.set()
        while not self.let_go.is_set():
            try:
                await self.let_go.wait()
            except asyncio.CancelledError:
                self.tidying.set()
        yield "and said too late"


@pytest.fixture
def agents() -> Agents:
    return Agents()


@asynccontextmanager
async def running(settings: Settings, agents: Agents, name: str, **asked: Any) -> AsyncGenerator[tuple[Service, str]]:
    """A service, and a run of one of the agents that has begun."""
    async with serving(settings, {name: getattr(agents, name)}) as service:
        run = await service.openai.responses.create(input="x", background=True, extra_body=asked)
        await service.workers[0].dispatcher.ring()  # there is no broker's consumer, and the next beat may be far off
        await agents.started.wait()
        yield service, run.id
        agents.let_go.set()


async def ended(service: Service, run: str) -> Any:
    async def over() -> Any:
        response: Any = await service.openai.responses.retrieve(run)
        return response if response.status not in ("queued", "in_progress") else None

    return await until(over)


# -- cancel ------------------------------------------------------------------------------------------------------------


async def test_a_worker_is_told_of_a_cancel_before_its_next_beat(settings: Settings, agents: Agents) -> None:
    rare = settings.model_copy(update={"beat_seconds": 1_000.0, "lease_seconds": 4_000.0, "sweep_seconds": 1_000.0})

    async def listening() -> bool:
        async with Redis.from_url(settings.required_redis_url()) as client:
            number = client.connection_pool.connection_kwargs["db"]
            return (await client.pubsub_numsub(f"outlast:{number}:cancelled"))[0][1] == 2  # the replica and the worker

    async with running(rare, agents, "obedient") as (service, run):
        await until(listening)
        async with asyncio.timeout(20):
            cancelled: Any = await service.openai.responses.cancel(run)
    assert (cancelled.status, cancelled.output_text) == ("cancelled", "working ")


async def test_without_the_broker_the_beat_finds_a_cancel(settings: Settings, agents: Agents) -> None:
    async with running(settings, agents, "obedient") as (service, run):
        service.replicas[0].services.hints.cancelled = lambda run_ids: None  # type: ignore[method-assign]
        await service.openai.responses.cancel(run)
        assert (await ended(service, run)).status == "cancelled"


async def test_a_cancelled_agent_gets_its_grace_and_what_it_says_then_is_kept(
    settings: Settings, agents: Agents
) -> None:
    async with running(settings, agents, "tidy") as (service, run):
        cancelling = asyncio.create_task(service.openai.responses.cancel(run))
        await agents.tidying.wait()
        assert (await service.openai.responses.retrieve(run)).status == "in_progress"
        agents.let_go.set()
        await cancelling
        assert ((await ended(service, run)).status, (await ended(service, run)).output_text) == (
            "cancelled",
            "working tidied",
        )


async def test_code_that_does_not_let_itself_be_cancelled_is_left_behind(
    settings: Settings, agents: Agents, database: Database
) -> None:
    brief = settings.model_copy(update={"grace_seconds": 0.2})
    async with running(brief, agents, "deaf") as (service, run):
        await service.openai.responses.cancel(run)
        response = await ended(service, run)
        agents.let_go.set()
        after: Any = await service.openai.responses.create(input="x")
        assert after.output_text.endswith("too late")

    assert (response.status, response.output_text, response.attempt_number) == ("cancelled", "working ", 1)
    check_log(await stored_lines(database, run))
    assert "too late" not in "".join(await stored_lines(database, run))


async def test_a_run_whose_worker_is_gone_is_cancelled_after_the_grace(settings: Settings, database: Database) -> None:
    brief = settings.model_copy(update={"grace_seconds": 0.1})
    async with serving(brief, {"test": Agents().obedient}, workers=0) as service:
        submission = await submitted(database)
        lost = await claimed_one(database, lease_seconds=1_000)
        run = response_id(submission.run_id)
        await service.openai.responses.cancel(run)
        response = await ended(service, run)
        again = await service.openai.responses.cancel(run)

    assert (response.status, response.attempt_number, again.status) == ("cancelled", 2, "cancelled")
    check_log(await stored_lines(database, run))
    zombie = await database.run(lambda c: leases.renew(c, [Lease(lost.run_id, lost.attempt)], lease_seconds=60))
    assert not zombie.held


async def test_ending_and_completing_have_one_winner(database: Database) -> None:
    for _ in range(20):
        submission = await submitted(database)
        run = await claimed_one(database)
        found = Overdue(run.run_id, run.principal, run.attempt, EndReason.CANCELLED)
        ending = endings.ended(run, await endings.past_of(database, run.run_id), EndReason.TASK_TIMEOUT)
        lease = Lease(run.run_id, run.attempt)
        won = await asyncio.gather(
            endings.end(database, found, lease_seconds=60),
            endings.end(database, found, lease_seconds=60),
            database.run(lambda c, of=lease, as_=ending: runs.finish(c, database.schema, of, as_)),
        )
        assert sum(won) == 1
        check_log(await stored_lines(database, response_id(submission.run_id)))


async def test_a_run_that_is_being_ended_is_not_taken_from_who_does_it(database: Database) -> None:
    await submitted(database)
    run = await claimed_one(database)
    found = Overdue(run.run_id, run.principal, run.attempt, EndReason.CANCELLED)
    first = await database.run(lambda c: overdue.seize(c, found, lease_seconds=60))
    assert first == Lease(run.run_id, run.attempt + 1)

    later = Overdue(run.run_id, run.principal, run.attempt + 1, EndReason.CANCELLED)
    assert await database.run(lambda c: overdue.seize(c, later, lease_seconds=60)) is None
    await database.run(lambda c: c.execute("UPDATE run_leases SET lease_until = now()"))
    assert await database.run(lambda c: overdue.seize(c, later, lease_seconds=60)) == Lease(run.run_id, 3)


# -- deadlines ---------------------------------------------------------------------------------------------------------


async def test_a_run_may_ask_for_less_time_than_its_agent_has(settings: Settings, agents: Agents) -> None:
    limits = settings.model_copy(update={"task_timeout_seconds": {"obedient": 100}})
    async with running(limits, agents, "obedient", timeout_seconds=1) as (service, run):
        response = await ended(service, run)
        with pytest.raises(openai.BadRequestError, match="timeout_seconds may be at most 100 here, not 101") as refused:
            await service.openai.responses.create(input="x", extra_body={"timeout_seconds": 101})

    assert (response.status, response.error.code, response.output_text) == ("failed", "task_timeout", "working ")
    assert refused.value.param == "timeout_seconds"  # type: ignore[attr-defined]


async def test_a_run_whose_time_is_up_has_failed_whatever_its_code_makes_of_it(
    settings: Settings, agents: Agents
) -> None:
    agents.let_go.set()
    async with running(settings, agents, "tidy", timeout_seconds=1) as (service, run):
        response = await ended(service, run)
    assert (response.error.code, response.output_text) == ("task_timeout", "working tidied")


async def out_of_time(database: Database) -> None:
    await database.run(lambda c: c.execute("UPDATE runs SET deadline_at = now() - interval '1 hour'"))


async def test_the_sweep_ends_a_run_in_time_whose_worker_is_gone(settings: Settings, database: Database) -> None:
    async with serving(settings, {"test": Agents().obedient}, workers=0) as service:
        await submitted(database)
        run = await claimed_one(database, lease_seconds=1_000)
        await out_of_time(database)
        response = await ended(service, response_id(run.run_id))
    assert (response.status, response.error.code) == ("failed", "task_timeout")


async def test_the_sweep_ends_a_run_whose_time_is_up_while_it_waits_for_its_next_attempt(
    settings: Settings, database: Database
) -> None:
    async with serving(settings, {"test": Agents().obedient}, workers=0) as service:
        await submitted(database)
        run = await claimed_one(database)
        await database.run(lambda c: leases.release(c, [Lease(run.run_id, run.attempt)], cause="test"))
        await out_of_time(database)
        response = await ended(service, response_id(run.run_id))
    assert (response.status, response.error.code) == ("failed", "task_timeout")


async def test_time_that_another_run_has_cost_is_given_back(database: Database) -> None:
    for _ in range(2):
        await submitted(database)
    runs_ = [await claimed_one(database) for _ in range(2)]
    held = [Lease(run.run_id, run.attempt) for run in runs_]
    await database.run(lambda c: leases.release(c, held, cause="child_stalled", refunds={held[0]: 7.5}))

    again = {run.run_id: run async for run in _reclaimed(database, 2)}
    late = [(again[run.run_id].deadline_at - run.deadline_at).total_seconds() for run in runs_]  # type: ignore[operator]
    assert late == [7.5, 0]


async def _reclaimed(database: Database, count: int) -> AsyncGenerator[Run]:
    for _ in range(count):
        yield await claimed_one(database)


# -- the queue ---------------------------------------------------------------------------------------------------------


async def test_a_run_that_no_worker_takes_in_time_fails(settings: Settings, database: Database) -> None:
    async with serving(settings, {"test": Agents().obedient}, workers=0) as service:
        lasting = await service.openai.responses.create(input="x", background=True)
        brief = await service.openai.responses.create(
            input="x", background=True, extra_body={"expire_queued_after_seconds": 1}
        )
        response = await ended(service, brief.id)
        assert (await service.openai.responses.retrieve(lasting.id)).status == "queued"

    assert (response.status, response.error.code, response.attempt_number) == ("failed", "expired_in_queue", 0)
    check_log(await stored_lines(database, brief.id))


async def test_a_run_that_is_claimed_after_it_expired_is_not_executed(settings: Settings, database: Database) -> None:
    submission = await submitted(database)
    await database.run(lambda c: c.execute("UPDATE runs SET expires_at = now() - interval '1 hour'"))
    agents = Agents()
    slow = settings.model_copy(update={"sweep_seconds": 100.0, "beat_seconds": 0.2, "lease_seconds": 400.0})
    async with serving(slow, {"test": agents.obedient}) as service:
        response = await ended(service, response_id(submission.run_id))
    assert response.error.code == "expired_in_queue" and not agents.started.is_set()


async def test_a_request_may_not_wait_longer_than_the_server_lets_it(settings: Settings) -> None:
    limited = settings.model_copy(update={"expire_queued_after_seconds": 60})
    async with serving(limited, {"test": Agents().obedient}, workers=0) as service:
        with pytest.raises(openai.BadRequestError, match="at most 60 here, not 61"):
            await service.openai.responses.create(input="x", extra_body={"expire_queued_after_seconds": 61})
        run = await service.openai.responses.create(input="x", background=True)
    assert parse_response_id(run.id)
