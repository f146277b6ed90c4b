"""Traces of real processes, at a collector: what was killed is in them too."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import httpx
import psycopg
import pytest

from tests.support.collector import collecting
from tests.support.processes import agent_processes, free_port, parts
from tests.support.waiting import until_sync

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="looks processes up in /proc")


def test_a_run_whose_worker_is_killed_is_one_trace(database_url: str, redis_url: str, tmp_path: Path) -> None:
    with collecting() as collector:
        env = {
            "DATABASE_URL": database_url,
            "REDIS_URL": redis_url,
            "OUTLAST_AGENTS": "graph=tests.e2e.graph:graph",
            "OUTLAST_LEASE_SECONDS": "3",
            "OUTLAST_BEAT_SECONDS": "0.5",
            "OTEL_EXPORTER_OTLP_ENDPOINT": collector.url,
        }
        with parts(env, tmp_path) as started:
            port = free_port()
            api, first = started.api(port), started.worker()
            created = httpx.post(f"http://127.0.0.1:{port}/responses", json={"input": "go", "background": True})
            run, trace = created.json()["id"], created.headers["x-trace-id"]
            until_sync(lambda: "attempt 1 started" in collector.of_trace(trace))
            doomed = [first.process.pid, *agent_processes(first.process.pid)]
            for pid in doomed:
                os.kill(pid, signal.SIGKILL)
            with psycopg.connect(database_url) as connection:
                status = connection.execute("SELECT status FROM outlast.runs").fetchall()
            assert status == [("in_progress",)], "it ended before its worker could be killed"
            second = started.worker()

            ended = httpx.get(f"http://127.0.0.1:{port}/responses/{run}?wait=60", timeout=90).json()
            assert ended["status"] == "completed"
            until_sync(lambda: "attempt 2" in collector.of_trace(trace))
            assert (second.stop(), api.stop()) == (0, 0)

    spans = collector.of_trace(trace)
    [root] = spans["invoke_agent graph"]
    assert (root.parent_id, root.service, root.attributes["outlast.run"]) == ("", "outlast-api", run)
    attempts = [spans["attempt 1 started"][0], spans["attempt 2 started"][0], spans["attempt 2"][0]]
    assert {span.parent_id for span in attempts} == {root.span_id}
    assert [span.attributes["outlast.attempt"] for span in attempts] == [1, 2, 2]
    assert "attempt 1" not in spans
    assert attempts[2].attributes["outlast.outcome"] == "completed" and attempts[2].service == "outlast-worker"
    below = [span for found in spans.values() for span in found if span.parent_id == attempts[2].span_id]
    assert {"step asking", "step tools", "step report"} <= {span.name for span in below}
    assert {span.name for span in spans["execute_tool look_up"]} and not spans["attempt 2"][0].error


def test_a_collector_that_is_away_holds_nothing_up(database_url: str, redis_url: str, tmp_path: Path) -> None:
    env = {
        "DATABASE_URL": database_url,
        "REDIS_URL": redis_url,
        "OUTLAST_AGENTS": "count=tests.e2e.agents:count",
        "OUTLAST_DRAIN_SECONDS": "0.2",
        "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{free_port()}",
    }
    with parts(env, tmp_path) as started:
        port = free_port()
        api, worker = started.api(port), started.worker()
        answer = httpx.post(f"http://127.0.0.1:{port}/responses", json={"input": "3"}, timeout=60)
        assert answer.json()["status"] == "completed"
        assert (worker.stop(), api.stop()) == (0, 0)
    assert "password" not in api.said + worker.said
