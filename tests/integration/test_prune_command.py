"""`outlast prune`: says what it would remove, asks, removes it, and can be stopped."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Awaitable, Callable, Generator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest
from typer.testing import CliRunner, Result

from outlast.infra.cli import app
from outlast.infra.cli.prune import size
from outlast.shared.connections import Database
from outlast.shared.domain.runs import RunStatus
from tests.integration.test_retention import ended_graph_run
from tests.support.aging import WAITING, age, finished, left, rows
from tests.support.runs import claimed_one, finish, submitted
from tests.support.waiting import until_sync

Outlast = Callable[..., Awaitable[Result]]
ENV = {name: value for name, value in os.environ.items() if not name.startswith("OUTLAST_")}


@pytest.fixture
def outlast(database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Outlast:
    monkeypatch.chdir(tmp_path)

    async def run(*arguments: str, **env: str) -> Result:
        given = {"DATABASE_URL": database_url, **env}
        return await asyncio.to_thread(CliRunner().invoke, app, ["prune", *arguments], env=given)  # it has a loop too

    return run


async def test_a_dry_run_says_how_much_it_is_and_removes_nothing(outlast: Outlast, database: Database) -> None:
    for number in range(3):
        await ended_graph_run(database, days=31, number=number, thread="c")
    await ended_graph_run(database, days=31, thread="other")
    young = await ended_graph_run(database, number=2, thread="other")
    before = await rows(database)
    said = await outlast("--dry-run")

    assert said.exit_code == 0, said.stderr
    assert said.stdout.startswith("finished more than 30d ago: 4 runs, ") and " KB of events" in said.stdout
    assert said.stdout.endswith(", 3 checkpoints\n")
    assert await rows(database) == before

    done = await outlast("--yes")
    assert (done.exit_code, done.stdout.split(",")[0]) == (0, "removed 4 runs"), done.stderr
    assert "1 threads, 3 checkpoints" in done.stdout
    assert await left(database, young) == [True]
    assert "0 runs" in (await outlast("--dry-run")).stdout and (await outlast("--yes")).exit_code == 0


async def test_only_what_was_asked_for_goes(outlast: Outlast, database: Database) -> None:
    mine = await finished(database, days=2, agent="mine")
    other = await finished(database, days=2)
    await submitted(database)
    failed = await claimed_one(database)
    await finish(database, failed, failed.last_seq + 1, status=RunStatus.FAILED)
    await age(database, [failed.run_id], 2)

    assert (await outlast("--yes", "--older-than", "3d")).exit_code == 0
    assert await left(database, mine, other, failed) == [True, True, True]
    assert (await outlast("--yes", "--older-than", "1d", "--agent", "mine")).exit_code == 0
    assert await left(database, mine, other, failed) == [False, True, True]
    assert (await outlast("--yes", "--older-than", "1d", "--status", "failed")).exit_code == 0
    assert await left(database, mine, other, failed) == [False, True, False]
    assert (await outlast("--yes", OUTLAST_RETENTION_DAYS="1")).exit_code == 0
    assert await left(database, other) == [False]


async def test_a_long_forecast_is_an_estimate_and_says_so(outlast: Outlast, database: Database) -> None:
    await finished(database, days=31, events=50)
    columns = """principal, thread_id, agent, status, ready, attempt, timeout_seconds, deadline_at, created_at,
                 started_at, finished_at, background, store, tool_items, request, response"""
    fill = f"""
        WITH r AS (INSERT INTO runs (id, {columns})
                   SELECT gen_random_uuid(), {columns} FROM runs, generate_series(1, 1000) RETURNING id),
        h AS (INSERT INTO run_heads (run_id, last_seq, closed) SELECT id, 3, true FROM r RETURNING run_id)
        INSERT INTO run_events (run_id, first_seq, last_seq, data) SELECT h.run_id, first_seq, last_seq, data
        FROM h, run_events"""
    await database.run(lambda c: c.execute(fill.encode()))
    said = await outlast("--dry-run")

    assert "1,001 runs, about " in said.stdout and "about 0 checkpoints" in said.stdout, said.stdout + said.stderr


async def test_nothing_is_removed_without_a_yes(outlast: Outlast, database: Database) -> None:
    run = await finished(database, days=31)
    said = await outlast()
    assert said.exit_code == 1 and "--yes" in said.stderr and "1 runs" in said.stderr
    assert await left(database, run) == [True]


@pytest.mark.parametrize(
    ("arguments", "env", "says"),
    [
        (("--older-than", "soon"), {}, "--older-than: a number and one of s, m, h, d, w"),
        ((), {"OUTLAST_RETENTION_DAYS": "0"}, "say --older-than"),
        (("--status", "queued"), {}, "only runs that have ended"),
        ((), {"OUTLAST_RETENTION_DAYS": "-1"}, "retention_days"),
        ((), {"DATABASE_URL": ""}, "DATABASE_URL"),
    ],
)
async def test_what_is_wrong_is_said_in_one_line(
    outlast: Outlast, arguments: tuple[str, ...], env: dict[str, str], says: str
) -> None:
    said = await outlast("--yes", *arguments, **env)
    assert said.exit_code == 1 and says in said.stderr and len(said.stderr.splitlines()) == 1, said.stderr


@contextmanager
def pruning_in_the_middle(database_url: str) -> Generator[subprocess.Popen[str]]:
    """A prune that has removed runs and events of its batch and cannot come to its end, nor commit."""
    with psycopg.connect(database_url, options="-c search_path=outlast") as connection:
        connection.execute("LOCK TABLE threads IN SHARE MODE")
        command = [sys.executable, "-m", "outlast.infra.cli", "prune", "--yes"]
        env = {**ENV, "DATABASE_URL": database_url}
        process = subprocess.Popen(command, env=env, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)

        def waits() -> bool:
            row = connection.execute(WAITING).fetchone()
            return bool(row and row[0])

        try:
            until_sync(waits)
            yield process
        finally:
            process.kill()
            process.wait()


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
async def test_a_prune_that_is_ended_in_the_middle_leaves_every_run_whole(
    database_url: str, database: Database, how: signal.Signals
) -> None:
    ended = [await ended_graph_run(database, days=31, number=number) for number in range(3)]
    before = await rows(database)
    with pruning_in_the_middle(database_url) as process:
        process.send_signal(how)
        _, said = process.communicate(timeout=20)
    assert process.returncode == (130 if how is signal.SIGINT else -how)
    assert how is signal.SIGKILL or "stopped: removed 0 runs" in said

    assert await rows(database) == before
    assert await left(database, *ended) == [True] * 3


def test_sizes_are_told_in_units_that_people_read() -> None:
    assert [size(n) for n in (0, 1023, 2048, 5 * 2**20, 3 * 2**30)] == [
        "0 bytes", "1023 bytes", "2.0 KB", "5.0 MB", "3.0 GB"
    ]  # fmt: skip
