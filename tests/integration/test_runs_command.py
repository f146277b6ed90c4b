"""`outlast runs` and `outlast workers`: what operators see and do on the command line."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, TypeVar

import pytest
from typer.testing import CliRunner, Result

from outlast.infra.cli import app
from outlast.shared.connections import Database, fixed
from outlast.shared.domain.ids import response_id
from outlast.shared.domain.runs import RunStatus
from outlast.shared.store import workers
from outlast.shared.wire import to_json
from tests.support.refusals import NOBODY
from tests.support.runs import claimed, claimed_one, finish, submitted

T = TypeVar("T")
Outlast = Callable[..., Result]


@pytest.fixture
def outlast(database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Outlast:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("outlast.infra.cli.steering._END_SECONDS", 0.1)

    def run(*arguments: str, **env: str) -> Result:
        return CliRunner().invoke(app, arguments, env={"DATABASE_URL": database_url, **env})

    return run


def done(database_url: str, work: Callable[[Database], Awaitable[T]]) -> T:
    async def with_database() -> T:
        database = Database(fixed(database_url), schema="outlast", application="tests")
        async with database.pooled(max_connections=2) as opened:
            return await work(opened)

    return asyncio.run(with_database())


async def five_failed(database: Database) -> list[str]:
    made = [await submitted(database, agent=f"a{n % 2}") for n in range(5)]
    for run in await claimed(database):
        await finish(database, run, 2, status=RunStatus.FAILED)
    return [response_id(submission.run_id) for submission in made]


def lines_of(result: Result) -> list[dict[str, Any]]:
    return [json.loads(line) for line in result.stdout.splitlines()]


def test_runs_are_listed_and_shown(outlast: Outlast, database_url: str) -> None:
    async def make(database: Database) -> tuple[str, str]:
        waiting = await submitted(database, principal="alice", agent="slow")
        running = await claimed_one(database, owner="host:7:abc")
        await submitted(database, principal="bob")
        return response_id(waiting.run_id), response_id(running.run_id)

    id, _ = done(database_url, make)
    shown = outlast("runs", "list", "--principal", "alice")
    lines = shown.stdout.splitlines()
    assert len(lines) == 2 and lines[0].startswith("ID ") and lines[1].startswith(id), shown.output
    assert re.search(r"slow +in_progress +1 +\d+\.\d s +\d+\.\d s +host:7 +-$", lines[1])
    [parsed] = lines_of(outlast("runs", "list", "--status", "in_progress", "--json"))
    assert (parsed["id"], parsed["principal"], parsed["worker"]) == (id, "alice", "host:7:abc")
    told = outlast("runs", "show", id).stdout
    for word in ("principal  alice", "worker     host:7:abc", "attempts   1", "deadline ", "lease ", "response.queued"):
        assert word in told, told
    assert json.loads(outlast("runs", "show", id, "--json").stdout) | {"lease_seconds_left": 0} == parsed | {
        "lease_seconds_left": 0
    }
    assert outlast("runs", "list", "--older-than", "1h").stderr == "No runs.\n"


def test_runs_are_retried_by_id_and_in_bulk(outlast: Outlast, database_url: str) -> None:
    ids = done(database_url, five_failed)
    first = outlast("runs", "retry", ids[0], NOBODY)
    assert (first.exit_code, first.stdout) == (1, f"{ids[0]} is queued again\n")
    assert first.stderr == f"outlast: {NOBODY}: there is no such run.\n"
    again = outlast("runs", "retry", ids[0])
    assert again.exit_code == 1 and "it has not ended" in again.stderr

    dry = outlast("runs", "retry", "--status", "failed", "--dry-run")
    assert dry.exit_code == 0 and "4 runs would be retried." in dry.stdout and re.search(r"a1 +failed +2\n", dry.stdout)
    refused = outlast("runs", "retry", "--status", "failed")
    assert refused.exit_code == 1 and "--yes does it" in refused.stderr
    assert len(outlast("runs", "list", "--status", "queued", "--json").stdout.splitlines()) == 1
    did = outlast("runs", "retry", "--agent", "a1", "--yes", REDIS_URL="redis://127.0.0.1:9/0")
    assert (did.exit_code, did.stdout, did.stderr) == (0, "2 runs are queued again.\n", "")
    assert len(outlast("runs", "list", "--status", "queued", "--json").stdout.splitlines()) == 3


def test_runs_are_cancelled_by_id_and_in_bulk(outlast: Outlast, database_url: str) -> None:
    async def make(database: Database) -> list[str]:
        return [response_id((await submitted(database, agent=f"a{n % 2}")).run_id) for n in range(450)]

    ids = done(database_url, make)
    one = outlast("runs", "cancel", ids[0], NOBODY)
    assert (one.exit_code, one.stdout) == (1, f"{ids[0]} is being cancelled\n") and "no such run" in one.stderr
    assert "cancelling" in outlast("runs", "list", "--limit", "1000").stdout.splitlines()[450]
    dry = outlast("runs", "cancel", "--status", "queued", "--dry-run")
    assert "449 runs would be cancelled." in dry.stdout and re.search(r"a0 +queued +224\n", dry.stdout), dry.stdout
    assert outlast("runs", "cancel", "--agent", "a1").exit_code == 1
    did = outlast("runs", "cancel", "--agent", "a1", "--yes")
    assert (did.exit_code, did.stdout) == (0, "225 runs are being cancelled.\n")
    assert "224 runs would" in outlast("runs", "cancel", "--status", "queued", "--dry-run").stdout
    assert outlast("runs", "cancel", "--agent", "a1", "--yes").stderr == "No runs.\n"


def test_what_is_wrong_is_said_in_one_line(outlast: Outlast, database_url: str) -> None:
    [id, *_] = done(database_url, five_failed)
    wrong = [
        ("cancel",), ("retry",), ("cancel", id, "--agent", "x"), ("retry", id, "--status", "failed"),
        ("retry", "resp_1"),
        ("cancel", "--status", "failed", "--yes"), ("retry", "--status", "completed", "--yes"), ("cancel", id),
        ("list", "--older-than", "soon"), ("list", "--agent", "a\nb"), ("list", "--after", "x"), ("show", NOBODY),
        ("cancel", "--url", "http://127.0.0.1:9", "--agent", "x"),
    ]  # fmt: skip
    for arguments in wrong:
        told = outlast("runs", *arguments)
        assert (told.exit_code, told.stdout) == (1, ""), arguments
        assert re.fullmatch(r"outlast: .{10,200}\n", told.stderr), told.stderr
    assert outlast("runs", "list", "--status", "lost").exit_code == 2
    away = outlast("runs", "retry", id, DATABASE_URL="postgresql://127.0.0.1:9/none")
    assert away.exit_code == 1 and away.stderr.startswith("outlast: The database cannot be reached")
    elsewhere = outlast("runs", "cancel", "--agent", "x", "--yes", OUTLAST_SCHEMA="elsewhere")
    assert elsewhere.exit_code == 1 and "outlast migrate" in elsewhere.stderr


def test_workers_are_listed_and_drained_by_name(outlast: Outlast, database_url: str) -> None:
    empty = outlast("workers")
    assert (empty.exit_code, empty.stdout) == (0, "") and "No worker is alive" in empty.stderr

    async def make(database: Database) -> None:
        for pid in (7, 8, 9):
            plain: dict[str, Any] = {"version": "1", "queues": ["default"], "children": 2, "slots": 20, "running": 1}
            report = workers.Report(owner=f"h:{pid}:x", host="h", pid=pid, draining=False, counters={}, **plain)
            await database.run(lambda c: workers.report(c, report))
        await submitted(database)
        await claimed_one(database, owner="h:7:x")
        await database.run(lambda c: c.execute("UPDATE run_leases SET claimed_at = now() - interval '90 s'"))
        await database.run(lambda c: c.execute("UPDATE workers SET seen_at = now() - interval '9 s' WHERE pid = 9"))

    done(database_url, make)
    assert outlast("workers", "drain").exit_code == outlast("workers", "drain", "h:8", "h:77").exit_code == 1
    assert outlast("workers", "drain", "h:7").stdout == "h:7:x is asked to drain\n"
    shown = outlast("workers").stdout
    assert re.search(r"^h:7 +draining +2 +20 +1 +1 min ", shown, re.MULTILINE), shown
    assert re.search(r"^h:8 +alive +2 +20 +1 +- ", shown, re.MULTILINE), shown
    assert re.search(r"^h:9 +silent ", shown, re.MULTILINE), shown
    parsed = lines_of(outlast("workers", "--json"))
    assert [(worker["pid"], worker["drain_requested"]) for worker in parsed] == [(7, True), (8, False), (9, False)]
    assert len(outlast("workers", "drain", "--all").stdout.splitlines()) == 3


EVIL = "\x1b]0;title\x07\x1b[2J\x9b31m\r\u202e"


def test_what_callers_and_agents_wrote_is_not_sent_to_the_operators_terminal(
    outlast: Outlast, database_url: str
) -> None:
    async def make(database: Database) -> str:
        forging = {name: f"{name}{EVIL}\nstatus     completed" for name in ("agent", "principal", "thread")}
        made = await submitted(database, **forging)
        await finish(database, await claimed_one(database, owner=f"host{EVIL}:7:a"), 2, status=RunStatus.FAILED)
        said = to_json({"error": {"code": f"code{EVIL}", "message": f"message{EVIL}\nevents     0"}})
        await database.run(lambda c: c.execute("UPDATE runs SET response = %s", (said,)))
        return response_id(made.run_id)

    id = done(database_url, make)
    for arguments in (["runs", "list"], ["runs", "show", id], ["queue", "--once"], ["runs", "list", "--json"]):
        said = outlast(*arguments).output
        assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f\u202a-\u202e]", said), (arguments, said)
    shown = outlast("runs", "show", id).output
    assert "␛]0;title␇␛[2J" in shown
    heads = [line.split()[0] for line in shown.splitlines()]
    assert [heads.count(name) for name in ("status", "agent", "events")] == [1, 1, 1]
    assert (
        json.loads(outlast("runs", "show", id, "--json").output)["error"]["message"] == f"message{EVIL}\nevents     0"
    )
