"""A user's token goes from the proxy to the agent, in every attempt, and is found nowhere else."""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import openai
import psycopg
import pytest
import redis

from tests.e2e.impersonators import digest
from tests.support.collector import collecting
from tests.support.processes import agent_processes, free_port, parts, wait_serving
from tests.support.waiting import until_sync

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="looks processes up in /proc")

CANARY = "canary-3b1f62e9d0a47c58"
ENV = {
    "OUTLAST_AGENTS": "function=tests.e2e.impersonators:function,graph=tests.e2e.impersonating_graph:graph",
    "OUTLAST_AUTH": "databricks",
    "OUTLAST_TOKEN_KEY": "of-tests-and-of-nobody-else-0123456789",
    "OUTLAST_BEAT_SECONDS": "0.3",
    "OUTLAST_LEASE_SECONDS": "1.5",
    "OUTLAST_MAX_RETRIES": "1",
    "OUTLAST_RETRY_SECONDS": "0.1",
}
ASKED = [
    *(("function", how) for how in ("use", "say", "log", "raise", "fail", "retry")),
    *(("graph", how) for how in ("use", "raise")),
]


def user(port: int, token: str = CANARY, name: str = "7@42") -> openai.OpenAI:
    """A user, as the proxy brings them here."""
    headers = {"X-Forwarded-User": name, "X-Forwarded-Email": "u@example.com", "X-Forwarded-Access-Token": token}
    url = f"http://127.0.0.1:{port}/v1"
    return openai.OpenAI(base_url=url, api_key="none", max_retries=0, timeout=60, default_headers=headers)


@contextmanager
def overheard(redis_url: str) -> Generator[list[str]]:
    """All that anybody says to Redis."""
    said: list[str] = []
    ours = redis.Redis.from_url(redis_url).connection_pool.connection_kwargs["db"]  # of a server that others use too
    with redis.Redis.from_url(redis_url, socket_timeout=None) as client, client.monitor() as monitor:

        def listen() -> None:
            while not said or "that is all" not in said[-1]:
                heard = dict(monitor.next_command() or {})
                if heard["db"] == ours:
                    said.append(str(heard["command"]))

        listening = threading.Thread(target=listen)
        listening.start()
        yield said
        client.publish("tests", "that is all")
        listening.join()


def in_redis(redis_url: str) -> bytes:
    """All keys and values, as they are kept."""
    with redis.Redis.from_url(redis_url) as client:
        return b"".join(key + (client.dump(key) or b"") for key in client.scan_iter())  # type: ignore[union-attr,operator]


def in_postgres(database_url: str) -> dict[str, str]:
    """All tables, row by row."""
    tables = "SELECT format('%I.%I', schemaname, tablename) FROM pg_tables WHERE schemaname = 'outlast'"
    with psycopg.connect(database_url) as connection:
        names = [name for (name,) in connection.execute(tables)]
        rows = {name: connection.execute(f"SELECT t::text FROM {name} t").fetchall() for name in names}  # type: ignore[arg-type]
    return {name: "\n".join(row for (row,) in found) for name, found in rows.items()}


def test_the_token_reaches_every_attempt_and_is_stored_nowhere_whatever_an_agent_does_with_it(
    database_url: str, redis_url: str, tmp_path: Path
) -> None:
    with collecting() as collector, overheard(redis_url) as said:
        urls = {"DATABASE_URL": database_url, "REDIS_URL": redis_url, "OTEL_EXPORTER_OTLP_ENDPOINT": collector.url}
        with parts({**ENV, **urls}, tmp_path) as started:
            port, file = free_port(), tmp_path / "begun"
            first, api = started.launch(["worker"], {}), started.launch(["api", "--port", str(port)], {})
            first.wait_ready()
            wait_serving(api, port)
            with user(port) as client:
                lost = client.responses.create(input=f"wait {file}", background=True).id
                until_sync(file.exists)
                assert CANARY.encode() not in in_redis(redis_url) and b":user_token:" in in_redis(redis_url)
                for pid in (first.process.pid, *agent_processes(first.process.pid)):
                    os.kill(pid, signal.SIGKILL)
                second = started.worker()
                file.with_suffix(".end").touch()
                taken_over = client.responses.retrieve(lost, extra_query={"wait": 60})
                answers = [
                    [event.model_dump_json() for event in client.responses.create(model=agent, input=how, stream=True)]
                    for agent, how in ASKED
                ]
            until_sync(lambda: b":user_token:" not in in_redis(redis_url))
            assert (second.stop(), api.stop()) == (0, 0)
        kept, logs = in_postgres(database_url), first.said + second.said + api.said

    assert (taken_over.status, taken_over.output_text.strip()) == ("completed", f"2 {digest(CANARY)}")
    for (agent, how), events in zip(ASKED, answers, strict=True):
        ended = json.loads(events[-1])["response"]["status"]
        assert ended == ("failed" if how in ("raise", "fail", "retry") else "completed"), (agent, how, events[-1])
        assert digest(CANARY) in "".join(events), "the agent had it"
    # What is searched is what was meant to be.
    assert len([command for command in said if command.startswith("SET {outlast}:user_token:")]) == 1 + len(ASKED)
    assert "agent.failed" in logs and "some.event" in logs and "refused: ****" in kept["outlast.runs"]
    assert kept["outlast.checkpoint_writes"] and kept["outlast.run_saves"] and "****" in kept["outlast.checkpoints"]
    assert collector.spans
    places = {**kept, "logs": logs, "traces": repr(collector.spans), "redis": "\n".join(said), "answers": repr(answers)}
    assert [name for name, text in places.items() if CANARY in text or CANARY.encode().hex() in text] == []
