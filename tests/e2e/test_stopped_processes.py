"""Processes that are stopped, not killed: what they held is executed elsewhere, and never in two places at once."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import openai
import psycopg
import pytest

from outlast.shared.connections import Database
from tests.support.log import check_log, stored_lines
from tests.support.processes import Part, Parts, agent_processes, descendants, free_port, parts
from tests.support.waiting import until_sync

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="looks processes up in /proc")

LEASE_SECONDS = 3.0
SELF_FENCE_SECONDS = 2.0


@pytest.fixture
def started(database_url: str, redis_url: str, tmp_path: Path) -> Generator[Parts]:
    env = {
        "DATABASE_URL": database_url,
        "REDIS_URL": redis_url,
        "OUTLAST_AGENTS": "diary=tests.e2e.agents:diary",
        "OUTLAST_CHILDREN": "1",
        "OUTLAST_LEASE_SECONDS": str(LEASE_SECONDS),
        "OUTLAST_SELF_FENCE_SECONDS": str(SELF_FENCE_SECONDS),
        "OUTLAST_BEAT_SECONDS": "0.5",
        "OUTLAST_DRAIN_SECONDS": "0",
    }
    with parts(env, tmp_path) as starting:
        yield starting


@contextmanager
def stopped(*pids: int) -> Generator[None]:
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in reversed(pids):
            os.kill(pid, signal.SIGCONT)


def entries(diary: Path) -> list[tuple[int, float]]:
    if not diary.exists():
        return []
    lines = [line.split() for line in diary.read_text().splitlines()]
    return [(int(attempt), float(seconds)) for attempt, seconds in lines]


def attempts(diary: Path) -> set[int]:
    return {attempt for attempt, _ in entries(diary)}


def ended(client: openai.OpenAI, run: str) -> Any:
    def found() -> Any:
        response = client.responses.retrieve(run)
        return response if response.status not in ("queued", "in_progress") else None

    return until_sync(found)


def charged(database_url: str) -> int:
    with psycopg.connect(database_url) as connection:
        [(charged,)] = connection.execute("SELECT sum(charged_attempts)::int FROM outlast.runs").fetchall()
    return charged


def all_of(worker: Part) -> list[int]:
    return [worker.process.pid, *descendants(worker.process.pid)]


@pytest.mark.parametrize("what", ["parent", "everything"])
async def test_a_stopped_worker_is_replaced_and_does_no_harm_when_it_goes_on(
    started: Parts, database: Database, database_url: str, tmp_path: Path, what: str
) -> None:
    first, port = started.worker(), free_port()
    started.api(port)
    diary = tmp_path / "diary"
    with openai.OpenAI(base_url=f"http://127.0.0.1:{port}/v1", api_key="none", max_retries=0) as client:
        run = client.responses.create(input=str(diary), background=True).id
        until_sync(lambda: entries(diary))
        second = started.worker()
        with stopped(*(all_of(first) if what == "everything" else [first.process.pid])):
            until_sync(lambda: attempts(diary) == {1, 2})
        entries_then = len(entries(diary))
        until_sync(lambda: len(entries(diary)) > entries_then + 50)  # time for the first to do what it still would
        diary.with_suffix(".end").touch()
        response = ended(client, run)
        again = client.responses.create(input=str(diary), background=True).id
        assert ended(client, again).status == "completed"
    check_log(await stored_lines(database, run))

    assert (response.status, response.attempt_number) == ("completed", 2)
    assert charged(database_url) == 0
    last_of_first = max(seconds for attempt, seconds in entries(diary) if attempt == 1)
    first_of_second = min(seconds for attempt, seconds in entries(diary) if attempt == 2)
    if what == "parent":  # its child suspended the run by itself, before its lease ended
        assert last_of_first < first_of_second
    assert first.process.poll() is None and second.process.poll() is None


def test_a_child_that_was_stopped_alone_goes_on_with_its_runs(
    started: Parts, database_url: str, tmp_path: Path
) -> None:
    """Its parent has renewed its leases meanwhile: nothing has happened."""
    worker, port = started.worker(), free_port()
    started.api(port)
    diary = tmp_path / "diary"
    with openai.OpenAI(base_url=f"http://127.0.0.1:{port}/v1", api_key="none", max_retries=0) as client:
        run = client.responses.create(input=str(diary), background=True).id
        until_sync(lambda: entries(diary))
        [child] = agent_processes(worker.process.pid)
        with stopped(child), psycopg.connect(database_url, autocommit=True) as connection:
            began = connection.execute("SELECT now()").fetchone()

            def a_lease_has_passed() -> bool:
                row = connection.execute(
                    "SELECT now() - %s > make_interval(secs => %s)", (began and began[0], 1.5 * LEASE_SECONDS)
                ).fetchone()
                return bool(row and row[0])

            until_sync(a_lease_has_passed)
        entries_then = len(entries(diary))
        until_sync(lambda: len(entries(diary)) > entries_then + 10)
        diary.with_suffix(".end").touch()

        assert (ended(client, run).status, attempts(diary)) == ("completed", {1})
