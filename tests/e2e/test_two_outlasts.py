"""Two Outlasts share one database and one Redis without noticing each other."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import openai
import redis

from tests.support.processes import ROOT, free_port, parts


def test_two_outlasts_share_a_database_and_a_redis(database_url: str, redis_url: str, tmp_path: Path) -> None:
    env = {
        "DATABASE_URL": database_url,
        "REDIS_URL": redis_url,
        "OUTLAST_AGENTS": "where=tests.e2e.agents:where",
        "OUTLAST_BEAT_SECONDS": "100",  # only the doorbell wakes a worker
        "OUTLAST_LEASE_SECONDS": "300",
    }
    answers: dict[str, set[str]] = {}
    with (
        parts({**env, "OUTLAST_SCHEMA": "one"}, tmp_path) as one,
        parts({**env, "OUTLAST_SCHEMA": "Zwei"}, tmp_path) as two,
    ):
        clients: dict[str, openai.OpenAI] = {}
        for name, started in (("one", one), ("Zwei", two)):
            migrated = subprocess.run(
                [sys.executable, "-m", "outlast.infra.cli", "migrate"],
                env={"PATH": "/usr/bin:/bin", **env, "OUTLAST_SCHEMA": name},
                cwd=ROOT,
                capture_output=True,
                text=True,
                check=True,
            )
            assert f"schema {name}: 0001_runs_and_events.sql" in migrated.stdout
            started.worker()
            port = free_port()
            started.api(port)
            clients[name] = openai.OpenAI(base_url=f"http://127.0.0.1:{port}/v1", api_key="none", max_retries=0)
        for _ in range(3):
            for name, client in clients.items():
                answers.setdefault(name, set()).add(client.responses.create(input="who?").output_text)
        for client in clients.values():
            client.close()

    assert answers == {"one": {"one"}, "Zwei": {"Zwei"}}
    with redis.Redis.from_url(redis_url, decode_responses=True) as connection:
        assert all(key.startswith(("{one}:", "{Zwei}:")) for key in connection.scan_iter())
