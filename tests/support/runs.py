"""Runs made directly in the store, for tests that are about the store."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from outlast.api.submissions import first_events
from outlast.shared.connections import Database
from outlast.shared.domain.events import COMPLETED, Chunk, Event
from outlast.shared.domain.ids import new_uuid
from outlast.shared.domain.runs import Lease, Run, RunStatus, Submission, ToolItems
from outlast.shared.store import claims, events, retries, runs, submissions, sweeping
from outlast.shared.wire import event_line, to_json


def a_submission(**changes: Any) -> Submission:
    thread_id = new_uuid()
    plain = Submission(
        run_id=new_uuid(),
        thread_id=thread_id,
        thread=f"conv_{thread_id.hex}",
        principal="anonymous",
        agent="test",
        created_at=datetime.now(UTC),
        timeout_seconds=60,
        background=True,
        store=True,
        tool_items=ToolItems.MCP_CALL,
        previous_run_id=None,
        request={"input": "hi"},
    )
    return replace(plain, **changes)


def an_entry(submission: Submission | None = None, **changes: Any) -> submissions.Entry:
    submission = submission or a_submission(**changes)
    return submissions.Entry(submission, to_json(submission.request), first_events(submission))


async def submitted(database: Database, **changes: Any) -> Submission:
    entry = an_entry(**changes)
    await database.run(lambda c: submissions.submit(c, entry))
    return entry.submission


async def claimed(database: Database, *, limit: int = 10, owner: str = "test", lease_seconds: float = 60) -> list[Run]:
    leases = await database.run(
        lambda c: claims.claim(c, queues=["default"], limit=limit, owner=owner, lease_seconds=lease_seconds)
    )
    found = {run.run_id: run for run in await database.run(lambda c: runs.read_held(c, leases))}
    return [found[lease.run_id] for lease in leases]


async def claimed_one(database: Database, **options: Any) -> Run:
    [run] = await claimed(database, limit=1, **options)
    return run


def delta(sequence_number: int, text: str = "x") -> str:
    return event_line(Event("response.output_text.delta", sequence_number, {"delta": text}))


def an_append(run: Run, first_seq: int, count: int = 1, *, attempt: int | None = None) -> events.Append:
    lines = "\n".join(delta(first_seq + i) for i in range(count))
    return events.Append(
        run.run_id, run.attempt if attempt is None else attempt, Chunk(first_seq, first_seq + count - 1, lines)
    )


async def append(database: Database, *batch: events.Append) -> set[object]:
    return set(await database.run(lambda c: events.append(c, database.schema, batch)))


def an_ending(sequence_number: int, status: RunStatus = RunStatus.COMPLETED) -> runs.Ending:
    response = {"id": "resp", "status": status.value}
    line = event_line(Event(COMPLETED, sequence_number, {"response": response}))
    return runs.Ending(status, to_json(response), Chunk(sequence_number, sequence_number, line))


async def finish(database: Database, run: Run, sequence_number: int, **options: Any) -> bool:
    lease = Lease(run.run_id, options.pop("attempt", run.attempt))
    ending = an_ending(sequence_number, **options)
    return await database.run(lambda c: runs.finish(c, database.schema, lease, ending))


async def put_back(database: Database, run: Run, *, seconds: float = 3600) -> bool:
    """Have it wait for its retry."""
    lease = Lease(run.run_id, run.attempt)
    return await database.run(lambda c: retries.release(c, lease, seconds=seconds, cause="TimeoutError"))


async def take_first_attempts_over(database: Database) -> None:
    """As if their leases had ended: no renewal comes between."""
    connection = await database.connect()
    async with connection, connection.transaction():
        await connection.execute("UPDATE run_leases SET lease_until = now() - interval '1 hour' WHERE attempt = 1")
        await sweeping.take_back_expired(connection)
