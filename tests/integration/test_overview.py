"""What waits, what runs and who works: the numbers, what they cost, and where they are shown."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import httpx
import pytest
from typer.testing import CliRunner

from outlast.agent import Context, Request
from outlast.infra.cli import app
from outlast.infra.cli.queue import drawn, finished_between
from outlast.shared.connections import Database
from outlast.shared.domain.keys import Scope
from outlast.shared.settings import Settings
from outlast.shared.store import overview, workers
from outlast.shared.store.overview import Overview
from tests.support.keys import a_key, bearer
from tests.support.refusals import refused
from tests.support.runs import claimed, submitted
from tests.support.service import Service, serving
from tests.support.waiting import until

PAGE = Path(__file__).parents[2] / "docs/metrics.md"


async def look(database: Database, seconds: float = 60) -> Overview:
    return await database.run(lambda c: overview.read(c, submitted_seconds=seconds, beat_seconds=0.2))


async def reported(database: Database, owner: str, **changes: Any) -> None:
    plain: dict[str, Any] = {
        "host": "h", "pid": 7, "version": "1", "queues": ["default", "slow"], "children": 2, "slots": 20, "running": 3,
        "draining": False, "counters": {"runs_completed": 5, "runs_claimed": 9},
    }  # fmt: skip
    report = workers.Report(owner=owner, **{**plain, **changes})
    await database.run(lambda c: workers.report(c, report))


async def test_nothing_is_an_overview_too(database: Database) -> None:
    seen = await look(database)
    assert (seen.queues, seen.queued, seen.exact, seen.running, seen.workers, seen.submitted) == ({}, 0, True, 0, [], 0)
    text = "\n".join(drawn(seen, None))
    assert "queued 0 " in text and "Nothing is queued" in text and "No worker is alive: runs wait" in text


async def test_runs_are_counted_by_queue_agent_and_state(database: Database) -> None:
    for n in range(3):
        await submitted(database, agent=f"a{n % 2}", thread="busy" if n == 2 else f"t{n}")
    assert len(await claimed(database)) == 3
    await submitted(database, thread="busy")
    for _ in range(2):
        await submitted(database, queue="slow")
    await database.run(lambda c: c.execute("UPDATE runs SET created_at = now() - interval '90 s' WHERE queue = 'slow'"))
    await reported(database, "w1")

    seen = await look(database)

    states = {name: (queue.ready, queue.waiting, queue.running) for name, queue in seen.queues.items()}
    assert states == {"default": (0, 1, 3), "slow": (2, 0, 0)}
    assert 90 <= seen.queues["slow"].oldest_seconds < 200 and seen.queues["default"].oldest_seconds == 0
    assert (seen.queued, seen.exact, seen.running, seen.running_by_agent) == (3, True, 3, {"a0": 2, "a1": 1})
    assert seen.submitted == 6
    assert "2 min" not in (text := "\n".join(drawn(seen, None))) and "1 min" in text and "h:7" in text


async def test_a_worker_that_is_silent_is_not_alive(database: Database) -> None:
    await reported(database, "w1")
    await reported(database, "w2", pid=8)
    silent = "UPDATE workers SET seen_at = now() - interval '20 s' WHERE owner = 'w2'"
    await database.run(lambda c: c.execute(silent))
    seen = await look(database)
    assert [(worker.owner, worker.alive, worker.counters["runs_claimed"]) for worker in seen.workers] == [
        ("w1", True, 9),
        ("w2", False, 9),
    ]
    assert re.search(r"h:8 .* silent +2\d\.\d s ago", "\n".join(drawn(seen, None)))


async def test_what_ended_between_two_looks_is_told_as_a_rate(database: Database) -> None:
    await reported(database, "w1")
    before = await look(database, 2)
    await reported(database, "w1", counters={"runs_completed": 11, "runs_failed": 4, "runs_claimed": 99})
    await reported(database, "w2", counters={"runs_completed": 1000})  # it may have counted before the first look
    now = await look(database, 2)
    assert finished_between(before, now) == 10
    assert "finished 5.0/s" in drawn(now, before)[0] and "finished -" in drawn(now, None)[0]


MANY = """
WITH t AS (INSERT INTO threads (id, principal, name)
           SELECT gen_random_uuid(), 'p' || g % 50, 't' || g FROM generate_series(1, {count}) g RETURNING id, principal)
INSERT INTO runs (id, principal, thread_id, agent, turn, ready, created_at, timeout_seconds, background, store,
                  tool_items, request)
SELECT id, principal, id, 'a', row_number() OVER (), true, now() - interval '1 min', 60, true, true, 'mcp_call', '{{}}'
FROM t
"""


async def test_a_long_queue_is_not_counted_to_its_end(database: Database) -> None:
    connection = await database.connect(statement_timeout="60s")
    await connection.execute(MANY.format(count=30_000))  # type: ignore[arg-type]

    seen = await look(database)

    assert (seen.queues["default"].ready, seen.exact) == (overview.COUNTED_MOST, False)
    assert seen.queues["default"].oldest_seconds >= 60 and 15_000 <= seen.queued <= 60_000
    assert "about" in drawn(seen, None)[0] and "10,000+" in "\n".join(drawn(seen, None))
    await connection.execute("ANALYZE runs")
    assert 27_000 <= (await look(database)).queued <= 33_000
    for name in ("seqscan", "bitmapscan", "sort"):
        await connection.execute(f"SET enable_{name} = off")  # type: ignore[arg-type]
    for statement in (overview._READY, overview._WAITING, overview._RUNNING, overview._SUBMITTED):
        explained = await connection.execute(
            f"EXPLAIN (ANALYZE, FORMAT JSON) {statement}",  # type: ignore[arg-type]
            {"most": overview.COUNTED_MOST, "seconds": 60.0},
        )
        [(plans,)] = await explained.fetchall()
        for node in nodes(plans[0]["Plan"]):
            assert node["Node Type"] not in ("Seq Scan", "Bitmap Heap Scan"), statement
            assert node["Actual Rows"] * node["Actual Loops"] <= overview.COUNTED_MOST, (statement, node)
            assert node.get("Rows Removed by Filter", 0) == 0, (statement, node)
    await connection.close()


def nodes(plan: dict[str, Any]) -> list[dict[str, Any]]:
    return [plan, *(node for part in plan.get("Plans", ()) for node in nodes(part))]


# -- over HTTP ---------------------------------------------------------------------------------------------------------


async def echo(request: Request, _context: Context):
    yield request.text


@pytest.fixture
async def service(settings: Settings) -> AsyncGenerator[Service]:
    async with serving(settings.model_copy(update={"auth": "api_keys"}), {"echo": echo}) as running:
        yield running


@pytest.fixture
async def http(service: Service) -> AsyncGenerator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=service.url, timeout=20) as client:
        yield client


def told(text: str) -> dict[str, str]:
    """The names of our metrics and their types."""
    return dict(re.findall(r"^# TYPE (outlast_\w+) (\w+)$", text, re.MULTILINE))


def value(text: str, sample: str) -> float:
    found = re.search(rf"^{re.escape(sample)} (\S+)$", text, re.MULTILINE)
    return float(found[1]) if found else 0.0


AS_IF_RUNNING = """UPDATE runs SET status = 'in_progress', attempt = 1, started_at = now(), deadline_at = now()
                   WHERE queue = 'elsewhere'"""


async def test_every_metric_is_on_the_page_with_its_type_and_labels(
    http: httpx.AsyncClient, database: Database
) -> None:
    await http.get("/models")  # without a key
    await http.post("/responses", json={"input": "hi"}, headers=bearer(await a_key(database, "alice")))
    await submitted(database, agent="nobody's", queue="elsewhere")
    await database.run(lambda c: c.execute(AS_IF_RUNNING))

    async def measured() -> str | None:
        text = (await http.get("/metrics")).text
        return text if "outlast_worker_run_seconds_bucket" in text and "outlast_agent_running_runs{" in text else None

    text = await until(measured)
    rows = re.findall(r"^\| `(outlast_\w+)` \| (\w+) \| (.*?)\| ", PAGE.read_text(), re.MULTILINE)
    assert {name: kind for name, kind, _ in rows} == told(text)
    for name, kind, labels in rows:
        named = set(re.findall(r"`(\w+)`", labels)) | ({"le"} if kind == "histogram" else set())
        of_its_own = f"{name}_bucket" if kind == "histogram" else name
        samples = re.findall(rf"^{of_its_own}(?:\{{(.*)\}})? ", text, re.MULTILINE)
        assert samples, f"{name} was never measured: its labels are not compared"
        for sample in samples:
            assert set(re.findall(r"(\w+)=\"", sample)) == named, name


async def test_what_is_done_is_measured(http: httpx.AsyncClient, database: Database) -> None:
    headers = bearer(await a_key(database, "alice"))
    answer = await http.post("/responses", json={"input": "hi", "stream": True}, headers=headers)
    assert answer.status_code == 200
    await http.get("/models")
    await http.get("/admin/queue", headers=headers)

    async def finished() -> str | None:
        text = (await http.get("/metrics")).text
        ended = re.findall(r'^outlast_worker_runs_finished_total\{status="completed",.*\} (\S+)$', text, re.MULTILINE)
        return text if sum(map(float, ended)) == 1 else None

    text = await until(finished)
    assert value(text, "outlast_runs_accepted_total") == 1
    assert value(text, 'outlast_requests_refused_total{code="invalid_api_key"}') == 1
    assert value(text, 'outlast_requests_refused_total{code="insufficient_scope"}') == 1
    assert value(text, "outlast_submission_batch_runs_count") == value(text, "outlast_submission_batch_runs_sum") == 1
    assert value(text, "outlast_submission_commit_seconds_sum") > 0
    assert value(text, "outlast_events_sent_total") >= answer.text.count("event: ")
    assert (value(text, "outlast_database_up"), value(text, "outlast_workers")) == (1, 1)
    for secret in ("alice", "sk-outlast", "resp_"):
        assert secret not in text


async def test_without_its_database_a_replica_still_tells_its_own_numbers(
    http: httpx.AsyncClient, database: Database
) -> None:
    await database.run(lambda c: c.execute("ALTER TABLE workers RENAME TO elsewhere"))

    async def down() -> str | None:
        answer = await http.get("/metrics")
        assert answer.status_code == 200
        return answer.text if "outlast_database_up 0.0" in answer.text else None

    text = await until(down)
    assert "outlast_streams 0.0" in text and "outlast_queued_runs" not in text


async def test_many_scrapes_share_a_look(http: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch) -> None:
    looks = 0
    read = overview.read

    async def counting(*arguments: Any, **named: Any) -> Overview:
        nonlocal looks
        looks += 1
        return await read(*arguments, **named)

    monkeypatch.setattr(overview, "read", counting)
    monkeypatch.setattr("outlast.api.overviews._KEPT_SECONDS", 3600)
    for _ in range(5):
        assert (await http.get("/metrics")).status_code == 200
    assert looks == 1


async def test_the_queue_is_shown_to_admins_only(http: httpx.AsyncClient, database: Database) -> None:
    gateway = bearer(await a_key(database, "gateway", Scope.ACT_FOR_OTHERS))
    admin = bearer(await a_key(database, "root", Scope.ADMIN))
    assert "'admin'" in refused(await http.get("/admin/queue", headers=gateway), 403, code="insufficient_scope")

    async def with_worker() -> dict[str, Any] | None:
        shown = (await http.get("/admin/queue", headers=admin)).json()
        return shown if shown["workers"] else None

    shown = await until(with_worker)
    assert shown["queues"]["default"] == {"ready": 0, "waiting": 0, "running": 0, "oldest_seconds": 0.0}
    assert shown["workers"][0]["alive"] and shown["queued"] == 0 and shown["exact"]


# -- on the command line -----------------------------------------------------------------------------------------------


def test_queue_prints_once_when_it_is_piped(database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    env = {"DATABASE_URL": database_url}
    shown = CliRunner().invoke(app, ["queue"], env=env)
    assert shown.exit_code == 0 and "\x1b" not in shown.stdout and "No worker is alive" in shown.stdout
    parsed = json.loads(CliRunner().invoke(app, ["queue", "--json"], env=env).stdout)
    assert (parsed["queued"], parsed["workers"], parsed["queues"]) == (0, [], {})

    away = CliRunner().invoke(app, ["queue", "--once"], env={"DATABASE_URL": "postgresql://127.0.0.1:9/none"})
    assert (away.exit_code, away.stdout) == (1, "")
    assert re.fullmatch(r"outlast: The database cannot be reached.*\n", away.stderr)
    missing = CliRunner().invoke(app, ["queue"], env=env | {"OUTLAST_SCHEMA": "elsewhere"})
    assert missing.exit_code == 1 and "outlast migrate" in missing.stderr
