"""A worker's child processes: killed, stalled, poisoned, and ended with their parent."""

from __future__ import annotations

import json
import os
import re
import signal
import sys
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import openai
import psycopg
import pytest

from outlast.shared.connections import Database
from tests.support.log import check_log, stored_lines
from tests.support.processes import Part, Parts, agent_processes, alive, descendants, free_port, parent_of, parts
from tests.support.waiting import until_sync

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="looks processes up in /proc")


class Pool:
    """A service of real processes, and what can be learned of its worker."""

    def __init__(self, started: Parts, database_url: str) -> None:
        self.started = started
        self._database_url = database_url
        port = free_port()
        started.api(port)
        self.client = openai.OpenAI(base_url=f"http://127.0.0.1:{port}/v1", api_key="none", max_retries=0, timeout=60)

    def submit(self, agent: str, text: str = "x") -> str:
        return self.client.responses.create(model=agent, input=text, background=True).id

    def said(self, run: str) -> str:
        """What the run has stored so far."""
        with psycopg.connect(self._database_url) as connection:
            rows = connection.execute(
                "SELECT data FROM outlast.run_events WHERE run_id = %s ORDER BY last_seq", (run.removeprefix("resp_"),)
            ).fetchall()
        events = [json.loads(line) for (data,) in rows for line in data.split("\n")]
        return "".join(event["delta"] for event in events if event["type"] == "response.output_text.delta")

    def wait_said(self, run: str) -> str:
        return until_sync(lambda: self.said(run))

    def wait_ended(self, run: str) -> Any:
        def ended() -> Any:
            response = self.client.responses.retrieve(run)
            return response if response.status not in ("queued", "in_progress") else None

        return until_sync(ended)


@pytest.fixture
def pool(database_url: str, redis_url: str, tmp_path: Path) -> Generator[Pool]:
    names = ("count", "process", "poison", "stall", "printing")
    env = {
        "DATABASE_URL": database_url,
        "REDIS_URL": redis_url,
        "OUTLAST_AGENTS": ",".join(f"{name}=tests.e2e.agents:{name}" for name in names),
        "OUTLAST_CHILDREN": "2",
        # Nothing here waits for a lease to end: what goes on, goes on because the death was noticed.
        "OUTLAST_LEASE_SECONDS": "60",
        "OUTLAST_BEAT_SECONDS": "0.3",
        "OUTLAST_DRAIN_SECONDS": "0.2",
    }
    with parts(env, tmp_path) as started:
        made = Pool(started, database_url)
        yield made
        made.client.close()


FORGED = '{"event": "run.finished", "run": "resp_0", "status": "failed", "level": "info"}'


def test_what_an_agent_prints_forges_no_line_of_the_log_and_is_whole_when_it_dies(pool: Pool) -> None:
    worker = pool.started.worker(OUTLAST_MAX_ATTEMPTS="1")
    assert pool.wait_ended(pool.submit("printing", f"hi\n{FORGED}\nbye")).output_text == "printed"
    assert pool.wait_ended(pool.submit("printing", "the last words\nand die")).status == "failed"
    until_sync(lambda: worker.said.count("and die") == 4)
    assert worker.stop() == 0

    events = [json.loads(line) for line in worker.said.splitlines()]  # each is JSON, or this fails
    for text in ("hi", FORGED, "bye", "the last words", "and die"):
        assert [event["event"] for event in events if event.get("text") == text] == ["agent.printed"] * 4
    assert all(event.get("run") != "resp_0" for event in events)


@contextmanager
def nothing_left_of(worker: Part) -> Generator[None]:
    """Whatever the worker has started is gone soon afterwards."""
    processes = descendants(worker.process.pid)
    assert len(processes) >= 3  # the fork server and two children
    yield
    until_sync(lambda: not any(alive(pid) for pid in processes))


async def test_runs_of_a_killed_child_go_on_in_another_at_once(pool: Pool, database: Database) -> None:
    pool.started.worker()
    runs = [pool.submit("process") for _ in range(4)]
    before = [json.loads(pool.wait_said(run)) for run in runs]
    assert not any(told["celery"] or told["script"] for told in before)
    assert {told["subprocess"] for told in before} == {-signal.SIGTERM}
    pids = [told["pid"] for told in before]
    assert sorted(pids.count(pid) for pid in set(pids)) == [2, 2]

    os.kill(pids[0], signal.SIGKILL)

    for run, pid in zip(runs, pids, strict=True):
        if pid == pids[0]:
            until_sync(lambda: str(pid) not in pool.said(run).rpartition("{")[2] and pool.said(run).count("{") == 2)
        else:
            assert pool.said(run).count("{") == 1
        pool.client.responses.cancel(run)
        check_log(await stored_lines(database, run))


async def test_a_run_that_kills_its_process_is_given_up_and_the_others_go_on(pool: Pool, database: Database) -> None:
    pool.started.worker(OUTLAST_MAX_ATTEMPTS="2")
    counting = pool.submit("count", "150")
    poison, once = pool.submit("poison"), pool.submit("poison", "once")

    given_up, survived, counted = (pool.wait_ended(run) for run in (poison, once, counting))

    assert (given_up.status, given_up.error.code) == ("failed", "max_attempts_exceeded")
    assert "signal_9" in given_up.error.message
    assert survived.status == counted.status == "completed"
    assert counted.output_text == "".join(f"{n} " for n in range(150))
    for run in (poison, once, counting):
        check_log(await stored_lines(database, run))


@pytest.mark.parametrize("how", ["python", "regex"])
def test_children_die_with_their_worker_even_stalled(pool: Pool, how: str) -> None:
    worker = pool.started.worker()
    pool.wait_said(pool.submit("stall", how))

    with nothing_left_of(worker):
        worker.kill()


def test_a_stop_signal_to_all_processes_hands_runs_back_and_takes_nothing_along(pool: Pool) -> None:
    worker = pool.started.worker()
    run = pool.submit("count", "200")
    pool.wait_said(run)

    with nothing_left_of(worker):
        os.killpg(worker.process.pid, signal.SIGTERM)
        assert worker.process.wait(30) == 0

    assert pool.client.responses.retrieve(run).status == "queued"
    pool.started.worker()
    assert pool.wait_ended(run).output_text == "".join(f"{n} " for n in range(200))
    assert "child.died" not in worker.said


def test_a_worker_with_a_stalled_child_stops_and_hands_its_run_back(pool: Pool) -> None:
    worker = pool.started.worker(OUTLAST_LEASE_SECONDS="3")
    run = pool.submit("stall")
    pool.wait_said(run)

    with nothing_left_of(worker):
        assert worker.stop() == 0

    assert pool.client.responses.retrieve(run).status == "queued"


@pytest.mark.parametrize("times", [1, 2])
def test_a_worker_that_is_stopped_while_its_children_start_ends_in_order(pool: Pool, times: int) -> None:
    worker = pool.started.launch(["worker"], {})
    until_sync(lambda: descendants(worker.process.pid))

    for _ in range(times):
        worker.process.send_signal(signal.SIGTERM)

    assert worker.process.wait(60) == 0, worker.said
    assert "Traceback" not in worker.said and "critical" not in worker.said


def test_a_killed_fork_server_is_replaced_with_its_children(pool: Pool) -> None:
    worker = pool.started.worker()
    run = pool.submit("count", "100")
    pool.wait_said(run)
    [server] = {parent_of(pid) for pid in agent_processes(worker.process.pid)}

    os.kill(server, signal.SIGKILL)

    assert pool.wait_ended(run).output_text == "".join(f"{n} " for n in range(100))


def test_what_children_measure_is_shown_by_the_api_and_outlives_them(pool: Pool) -> None:
    worker = pool.started.worker()

    def measured(name: str) -> float:
        text = httpx.get(f"{pool.client.base_url.copy_with(path='/metrics')}").text
        return sum(map(float, re.findall(rf"^outlast_worker_{name}\{{.*\}} (\S+)$", text, re.MULTILINE)))

    def until_measured(name: str, count: int) -> None:
        until_sync(lambda: measured(name) >= count)

    for _ in range(3):
        pool.wait_ended(pool.submit("count"))
    until_measured("run_seconds_count", 3)
    assert measured("start_seconds_count") == 3 and measured("flush_events_sum") >= 9
    for pid in agent_processes(worker.process.pid):
        os.kill(pid, signal.SIGKILL)
    until_measured("child_deaths_total", 2)
    assert measured("run_seconds_count") == 3

    pool.wait_ended(pool.submit("count"))
    until_measured("run_seconds_count", 4)
    assert measured("run_seconds_count") == 4
