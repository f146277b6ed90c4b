"""Runs of real processes in MLflow, at a tracking server: one trace for each, whatever becomes of its workers."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Mapping
from pathlib import Path

import httpx
import pytest

from tests.support.mlflow_server import Tracking, tracking_server
from tests.support.processes import agent_processes, free_port, parts
from tests.support.waiting import until_sync

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="looks processes up in /proc")

ASKING = {"x-mlflow-return-trace-id": "true"}


def environment(database_url: str, redis_url: str, tracking: Tracking, **more: str) -> Mapping[str, str]:
    return {
        "DATABASE_URL": database_url,
        "REDIS_URL": redis_url,
        "OUTLAST_AGENTS": "graph=tests.e2e.recorded:graph,count=tests.e2e.agents:count",
        "OUTLAST_CHILDREN": "1",
        "OUTLAST_LEASE_SECONDS": "3",
        "OUTLAST_BEAT_SECONDS": "0.5",
        "MLFLOW_TRACKING_URI": tracking.url,
        "MLFLOW_EXPERIMENT_ID": "7",
        **more,
    }


def test_a_run_whose_worker_is_killed_is_one_trace(database_url: str, redis_url: str, tmp_path: Path) -> None:
    with tracking_server() as tracking, parts(environment(database_url, redis_url, tracking), tmp_path) as started:
        port = free_port()
        api, first = started.api(port), started.worker()
        asked = {"input": "go", "background": True, "conversation": "our thread", "metadata": {"theirs": "kept"}}
        created = httpx.post(f"http://127.0.0.1:{port}/responses", json=asked, headers=ASKING)
        run, trace = created.json()["id"], created.headers["x-mlflow-trace-id"]
        until_sync(lambda: "ask" in tracking.spans(trace))
        for pid in [first.process.pid, *agent_processes(first.process.pid)]:
            os.kill(pid, signal.SIGKILL)
        assert trace not in tracking.ended, "it ended before its worker could be killed"
        second = started.worker()
        ended = httpx.get(f"http://127.0.0.1:{port}/responses/{run}?wait=60", timeout=90).json()
        until_sync(lambda: trace in tracking.ended and "graph" in tracking.spans(trace))
        short = {"model": "count", "input": "3"}
        plain = httpx.post(f"http://127.0.0.1:{port}/responses", json=short, timeout=60)
        until_sync(lambda: plain.headers["x-mlflow-trace-id"] in tracking.ended)
        assert (second.stop(), api.stop()) == (0, 0)

    assert (ended["status"], ended["attempt_number"]) == ("completed", 2)
    assert ended["metadata"] == {"theirs": "kept", "trace_id": trace} and plain.json()["metadata"] == {}
    spans, info = tracking.spans(trace), tracking.ended[trace]
    root, attempt, steps = spans["graph"], spans["attempt 2"], [spans["wait"], spans["ask_again"]]
    assert (root.parent_id, attempt.parent_id) == ("", root.span_id)
    [graph] = [span for span in spans.values() if span.parent_id == attempt.span_id]
    assert [step.parent_id for step in steps] == [graph.span_id] * 2, "steps are beside one another"
    assert spans["ask"].parent_id not in ("", graph.span_id), "the first attempt's is there too"
    assert info["state"] == "OK" and info["tags"]["outlast.run"] == run
    assert info["trace_metadata"]["mlflow.trace.session"] == "our thread"
    assert info["trace_metadata"]["mlflow.trace.user"] == "anonymous"
    of_function = tracking.spans(plain.headers["x-mlflow-trace-id"])
    assert set(of_function) == {"count", "attempt 1"}
    assert "0 1 2" in str(of_function["count"].attributes)
    assert database_url.encode() not in tracking.received
    assert b"new_token" not in tracking.received


def test_mlflow_holds_nothing_up(database_url: str, redis_url: str, tmp_path: Path) -> None:
    with tracking_server() as tracking, parts(environment(database_url, redis_url, tracking), tmp_path) as started:
        port = free_port()
        api, worker = started.api(port), started.worker()
        for tracking.answers in ("<html>", None):
            before = tracking.asked
            asked = {"model": "count", "input": "3"}
            answer = httpx.post(f"http://127.0.0.1:{port}/responses", json=asked, timeout=60)
            assert answer.json()["status"] == "completed"
            until_sync(lambda before=before: tracking.asked > before)
        assert (worker.stop(), api.stop()) == (0, 0), "MLflow's threads wait for an answer"
        assert "Traceback" not in worker.said
