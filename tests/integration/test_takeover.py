"""A run that a worker loses and gets back: one attempt writes, the other is forgotten."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest

from outlast.agent import Context, Request
from outlast.shared.connections import Database
from outlast.shared.domain.errors import Unavailable
from outlast.shared.domain.ids import response_id
from outlast.shared.domain.runs import Lease
from outlast.shared.settings import Settings
from outlast.worker.attempt import Outcome
from outlast.worker.lease_clock import LeaseClock
from outlast.worker.runtime import open_runtime
from tests.support.log import check_log, stored_lines
from tests.support.runs import claimed_one, submitted, take_first_attempts_over
from tests.support.service import Service, serving
from tests.support.waiting import until


async def test_an_agent_whose_checkpoints_cannot_be_reached_is_tried_again(settings: Settings) -> None:
    async def agent(_request: Request, context: Context):
        if context.attempt == 1:
            raise Unavailable
        yield f"attempt {context.attempt}"

    brief = settings.model_copy(update={"lease_seconds": 1.5, "beat_seconds": 0.3})
    async with serving(brief, {"agent": agent}) as service:
        response = await service.openai.responses.create(input="hi")

    assert (response.status, response.output_text) == ("completed", "attempt 2")


class Patient:
    """An agent whose first attempt talks until it is stopped, and whose next one waits until it is let go."""

    def __init__(self) -> None:
        self.started: list[int] = []
        self.go = asyncio.Event()
        self.first_ended = asyncio.Event()

    async def agent(self, _request: Request, context: Context):
        self.started.append(context.attempt)
        yield f"attempt {context.attempt}"
        if context.attempt > 1:
            await self.go.wait()
            return
        try:
            while not await _set_within(self.go, 0.01):
                yield "."
        finally:
            self.first_ended.set()


async def _set_within(event: asyncio.Event, seconds: float) -> bool:
    try:
        await asyncio.wait_for(event.wait(), seconds)
    except TimeoutError:
        return False
    return True


async def lease_of_attempt(database: Database, attempt: int) -> float | None:
    """The lease's remaining seconds, when this attempt holds it."""
    connection = await database.connect()
    async with connection:
        cursor = await connection.execute(
            "SELECT extract(epoch FROM lease_until - now())::float FROM run_leases WHERE attempt = %s", (attempt,)
        )
        row = await cursor.fetchone()
        return row[0] if row else None


async def lost_and_claimed_again(service: Service, patient: Patient, database: Database) -> str:
    run = (await service.openai.responses.create(input="x", background=True)).id

    async def begun() -> bool:
        return bool(patient.started)

    async def twice() -> bool:
        if patient.started == [1]:
            await take_first_attempts_over(database)
        return patient.started == [1, 2]

    await until(begun)
    await until(twice)
    return run


async def test_a_worker_that_claims_its_lost_run_again_keeps_the_new_attempt(
    settings: Settings, database: Database
) -> None:
    patient = Patient()
    async with serving(settings, {"patient": patient.agent}) as service:
        run = await lost_and_claimed_again(service, patient, database)
        await asyncio.wait_for(patient.first_ended.wait(), 20)

        # The second attempt's lease goes on being renewed.
        for _ in range(3):
            await expire_soon(database)

            async def renewed() -> bool:
                return (await lease_of_attempt(database, 2) or 0) > settings.lease_seconds / 2

            await until(renewed)
        patient.go.set()

        async def ended() -> bool:
            return (await service.openai.responses.retrieve(run)).status == "completed"

        await until(ended)
        lines = await stored_lines(database, run)

    events = check_log(lines)
    assert patient.started == [1, 2]
    assert events[-1]["response"]["attempt_number"] == 2
    assert events[-1]["response"]["output"][0]["content"][0]["text"] == "attempt 2"


async def expire_soon(database: Database) -> None:
    connection = await database.connect()
    async with connection:
        await connection.execute("UPDATE run_leases SET lease_until = now() + interval '300 milliseconds'")


async def test_an_attempt_after_the_deadline_ends_the_run_without_starting_the_agent(
    settings: Settings, database: Database
) -> None:
    patient = Patient()
    run = await submitted(database, agent="patient")
    await claimed_one(database, lease_seconds=-1)
    connection = await database.connect()
    async with connection:
        await connection.execute("UPDATE runs SET deadline_at = now() - interval '1 second'")
    async with serving(settings, {"patient": patient.agent}) as service:

        async def failed() -> bool:
            found = await service.openai.responses.retrieve(response_id(run.run_id))
            return found.error is not None and found.error.code == "task_timeout"

        await until(failed)

    assert patient.started == []


async def test_what_cannot_be_read_is_given_up_and_frees_its_slot(settings: Settings, database: Database) -> None:
    await submitted(database, agent="patient")
    run = await claimed_one(database)
    lease = Lease(run.run_id, run.attempt)
    given_up: list[tuple[Lease, Outcome]] = []

    def give_up(lease: Lease, outcome: Outcome) -> None:
        given_up.append((lease, outcome))

    async with open_runtime(settings, {}, give_up, LeaseClock()) as runtime:
        await database.run(lambda c: c.execute("ALTER TABLE threads RENAME TO elsewhere"))
        runtime.start([lease], time.monotonic())

        async def ended() -> bool:
            return bool(given_up)

        await until(ended)

    assert given_up == [(lease, Outcome())]


@pytest.mark.parametrize(
    ("slots", "limits", "at_once"),
    [(2, {}, 2), (9, {"max_running_per_principal": 3}, 3), (9, {"max_running_per_agent": {"*": 1}}, 1)],
)
async def test_no_more_runs_are_taken_than_slots_and_limits_leave_room_for(
    settings: Settings, database: Database, slots: int, limits: dict[str, Any], at_once: int
) -> None:
    running: set[str] = set()
    most = 0
    gate = asyncio.Event()

    async def counted(_request: Request, context: Context):
        nonlocal most
        running.add(context.response_id)
        most = max(most, len(running))
        await gate.wait()
        running.discard(context.response_id)
        yield "done"

    narrow = settings.model_copy(update={"concurrency": slots, **limits})
    async with serving(narrow, {"counted": counted}) as service:
        runs = [(await service.openai.responses.create(input="x", background=True)).id for _ in range(7)]

        async def full() -> bool:
            return len(running) == at_once

        await until(full)
        statuses = [(await service.openai.responses.retrieve(run)).status for run in runs]
        assert statuses.count("in_progress") == at_once and statuses.count("queued") == 7 - at_once
        gate.set()

        async def all_completed() -> bool:
            return all([(await service.openai.responses.retrieve(run)).status == "completed" for run in runs])

        await until(all_completed)
    assert most == at_once
