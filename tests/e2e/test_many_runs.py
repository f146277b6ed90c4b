"""Two thousand runs on two API processes and two workers, while processes are killed and the broker comes and goes."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Generator
from pathlib import Path

import httpx
import pytest
import redis

from outlast.infra.embedded import Valkey
from outlast.shared.connections import Database
from outlast.shared.wire import event_from
from tests.support.log import check_log
from tests.support.processes import Parts, agent_processes, free_port, parts
from tests.support.waiting import until

RUNS = 2000
CLIENTS = 8
WORDS = 14  # with what is around them, twenty events

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="looks processes up in /proc")


@pytest.fixture
def valkey(tmp_path: Path) -> Generator[Valkey]:
    """A broker of the test's own: it is flushed and stopped."""
    server = Valkey(tmp_path / "valkey")
    server.start()
    yield server
    server.stop()


@pytest.fixture
def started(database_url: str, valkey: Valkey, tmp_path: Path) -> Generator[Parts]:
    env = {
        "DATABASE_URL": database_url,
        "REDIS_URL": valkey.url,
        "OUTLAST_AGENTS": "words=tests.e2e.agents:words",
        "OUTLAST_CHILDREN": "2",
        "OUTLAST_CONCURRENCY": "50",
        "OUTLAST_LEASE_SECONDS": "3",
        "OUTLAST_BEAT_SECONDS": "0.5",
        "OUTLAST_LOG_LEVEL": "warning",
    }
    with parts(env, tmp_path) as starting:
        yield starting


class Clients:
    """They submit runs to both replicas; every request is answered, whatever happens."""

    def __init__(self, ports: list[int]) -> None:
        self._urls = [f"http://127.0.0.1:{port}/responses" for port in ports]
        self.accepted: list[str] = []

    async def submit_all(self) -> None:
        async with httpx.AsyncClient(timeout=20) as http:
            await asyncio.gather(*(self._submit(http, number) for number in range(CLIENTS)))

    async def _submit(self, http: httpx.AsyncClient, number: int) -> None:
        for n in range(RUNS // CLIENTS):
            body = {"input": f"{number} {n}", "background": True}
            answer = await http.post(self._urls[n % len(self._urls)], json=body)
            assert answer.status_code == 200, answer.text
            self.accepted.append(answer.json()["id"])

    async def until_accepted(self, count: int) -> None:
        async def enough() -> bool:
            return len(self.accepted) >= count

        await until(enough, seconds=120)


async def test_two_thousand_runs_survive_kills_and_a_broker_that_comes_and_goes(
    started: Parts, valkey: Valkey, database: Database
) -> None:
    ports = [free_port(), free_port()]
    for port in ports:
        started.api(port)
    workers = [started.worker(), started.worker()]
    clients = Clients(ports)
    submitting = asyncio.create_task(clients.submit_all())

    await clients.until_accepted(RUNS // 8)
    os.kill(agent_processes(workers[0].process.pid)[0], signal.SIGKILL)
    await clients.until_accepted(RUNS * 2 // 8)
    with redis.Redis.from_url(valkey.url) as broker:
        broker.flushall()
    await clients.until_accepted(RUNS * 3 // 8)
    await asyncio.to_thread(valkey.stop)
    await clients.until_accepted(RUNS * 5 // 8)
    await asyncio.to_thread(valkey.start)
    await clients.until_accepted(RUNS * 6 // 8)
    workers[1].kill()
    await asyncio.to_thread(started.worker)
    await submitting

    assert len(set(clients.accepted)) == RUNS
    await until(lambda: all_completed(database), seconds=180)
    attempts = [check_words(lines) for lines in await logs(database)]
    assert len(attempts) == RUNS
    assert max(attempts) > 1  # something was interrupted, or this has shown nothing


async def all_completed(database: Database) -> bool:
    connection = await database.connect()
    async with connection:
        cursor = await connection.execute("SELECT status, count(*) FROM runs GROUP BY status")
        return dict(await cursor.fetchall()) == {"completed": RUNS}


async def logs(database: Database) -> list[list[str]]:
    connection = await database.connect(statement_timeout="60s")
    async with connection:
        cursor = await connection.execute(
            "SELECT string_agg(data, E'\n' ORDER BY last_seq) FROM run_events GROUP BY run_id"
        )
        return [data.split("\n") for (data,) in await cursor.fetchall()]


def check_words(lines: list[str]) -> int:
    """Contiguous, ended once, and never does an earlier attempt write after a later one. Returns the attempts."""
    check_log(lines)
    events = [event_from(line) for line in lines]
    said = [event.fields["delta"] for event in events if event.type == "response.output_text.delta"]
    by_attempt = [int(word.partition(":")[0]) for word in said]
    assert by_attempt == sorted(by_attempt)
    last = by_attempt[-1]
    expected = [f"{last}:{n} " for n in range(WORDS)]
    assert [word for word in said if word.startswith(f"{last}:")] == expected
    response = events[-1].fields["response"]
    assert response["output"][-1]["content"][0]["text"] == "".join(expected)
    return last
