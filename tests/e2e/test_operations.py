"""Operators at work on real processes: a run that was given up goes on, and a worker is taken out of service."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Generator
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

from outlast.shared.connections import Database
from tests.support.log import check_log, stored_lines
from tests.support.processes import ROOT, Parts, free_port, parts
from tests.support.waiting import until_sync

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="looks processes up in /proc")

RUNS = 12


class Operator:
    def __init__(self, env: dict[str, str], started: Parts) -> None:
        self._env = env
        self.started = started
        port = free_port()
        started.api(port)
        self._url = f"http://127.0.0.1:{port}"
        self.client = openai.OpenAI(base_url=f"{self._url}/v1", api_key="none", max_retries=0, timeout=60)

    def outlast(self, *arguments: str) -> str:
        command = [sys.executable, "-m", "outlast.infra.cli", *arguments]
        done = subprocess.run(command, env=self._env, cwd=ROOT, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def workers(self) -> list[dict[str, Any]]:
        return httpx.get(f"{self._url}/admin/workers").json()["data"]

    def drain(self, owner: str) -> None:
        assert httpx.post(f"{self._url}/admin/workers/{owner}/drain").status_code == 200

    def ended(self, run: str) -> Any:
        def found() -> Any:
            response = self.client.responses.retrieve(run)
            return response if response.status not in ("queued", "in_progress") else None

        return until_sync(found, seconds=60)


@pytest.fixture
def operator(database_url: str, redis_url: str, tmp_path: Path) -> Generator[Operator]:
    env = {
        "PATH": "/usr/bin:/bin",
        "DATABASE_URL": database_url,
        "REDIS_URL": redis_url,
        "OUTLAST_AGENTS": ",".join(f"{name}=tests.e2e.agents:{name}" for name in ("count", "poison")),
        "OUTLAST_LEASE_SECONDS": "60",  # nothing here waits for one to end
        "OUTLAST_BEAT_SECONDS": "0.3",
        "OUTLAST_DRAIN_SECONDS": "0.5",
        "OUTLAST_MAX_ATTEMPTS": "1",
    }
    with parts(env, tmp_path) as started:
        made = Operator(env, started)
        yield made
        made.client.close()


async def test_a_run_that_was_given_up_goes_on_and_a_worker_is_drained_under_load(
    operator: Operator, database: Database
) -> None:
    first = operator.started.worker()
    poisoned = operator.client.responses.create(model="poison", input="once", background=True).id
    assert operator.ended(poisoned).error.code == "max_attempts_exceeded"
    assert "is queued again" in operator.outlast("runs", "retry", poisoned)
    mended = operator.ended(poisoned)
    assert (mended.status, mended.attempt_number, mended.error) == ("completed", 3, None)
    check_log(await stored_lines(database, poisoned))

    running = [operator.client.responses.create(model="count", input="150", background=True).id for _ in range(RUNS)]
    until_sync(lambda: operator.workers()[0]["running"] == RUNS)
    operator.drain(operator.workers()[0]["owner"])
    assert first.process.wait(30) == 0
    assert operator.workers() == []
    operator.started.worker()
    responses = [operator.ended(run) for run in running]
    assert {response.status for response in responses} == {"completed"}
    assert 2 in {response.attempt_number for response in responses}, "what did not end in time was handed back"
    for run in running:
        check_log(await stored_lines(database, run))
