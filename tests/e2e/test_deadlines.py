"""Code that does not let its run end: the run ends in time, its siblings complete, and the worker stays well."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Generator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import openai
import psycopg
import pytest

from outlast.shared.connections import Database, fixed
from tests.support.log import check_log, stored_lines
from tests.support.processes import Part, agent_processes, free_port, parts
from tests.support.waiting import until_sync

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="looks processes up in /proc")

TIMEOUT_SECONDS = 3
SIBLINGS = 6
OFFENDERS = ("awaits", "swallows", "spins", "sleeps", "sleeps_in_a_thread", "regex", "regex_in_a_thread", "sync_graph")
ENV = {
    "OUTLAST_CHILDREN": "2",
    "OUTLAST_STALL_SECONDS": "1",
    "OUTLAST_GRACE_SECONDS": "0.5",
    "OUTLAST_BEAT_SECONDS": "0.3",
    "OUTLAST_LEASE_SECONDS": "30",  # nothing here waits for a lease to end
    "OUTLAST_DRAIN_SECONDS": "0.2",
    "OUTLAST_PRELOAD": "outlast.worker.agents.langgraph",  # children are replaced all the time here
}


class Service:
    def __init__(self, client: openai.OpenAI, worker: Part, database_url: str) -> None:
        self.client = client
        self.worker = worker
        self.database_url = database_url

    def submit(self, agent: str, text: str = "x", **more: Any) -> str:
        return self.client.responses.create(model=agent, input=text, background=True, extra_body=more).id

    def wait_ended(self, run: str) -> Any:
        def ended() -> Any:
            response = self.client.responses.retrieve(run)
            return response if response.status not in ("queued", "in_progress") else None

        return until_sync(ended)

    def row(self, run: str, columns: str) -> Any:
        with psycopg.connect(self.database_url) as connection:
            return connection.execute(
                f"SELECT {columns} FROM outlast.runs WHERE id = %s",  # type: ignore[arg-type]
                (run.removeprefix("resp_"),),
            ).fetchone()

    def wait_said(self, run: str) -> None:
        """Until the run's code is under way: its first word is stored."""
        said = "(SELECT count(*) FROM outlast.run_events e WHERE e.run_id = runs.id AND e.data LIKE '%%text.delta%%')"
        until_sync(lambda: self.row(run, said)[0])

    def counters(self) -> dict[str, int]:
        with psycopg.connect(self.database_url) as connection:
            row = connection.execute("SELECT counters::json FROM outlast.workers").fetchone()
        return row[0] if row else {}


def serving(database_url: str, redis_url: str, folder: Path, **env: str) -> Generator[Service]:
    agents = (*OFFENDERS, "sibling", "tidies")
    named = {"OUTLAST_AGENTS": ",".join(f"{name}=tests.e2e.offenders:{name}" for name in agents)}
    with parts({"DATABASE_URL": database_url, "REDIS_URL": redis_url, **named, **ENV, **env}, folder) as started:
        port = free_port()
        started.api(port)
        with openai.OpenAI(base_url=f"http://127.0.0.1:{port}/v1", api_key="none", max_retries=0) as client:
            yield Service(client, started.worker(), database_url)


@pytest.fixture(scope="module")
def service(shared_database_url: str, broker_url: str, tmp_path_factory: pytest.TempPathFactory) -> Generator[Service]:
    """One worker for all of these tests: what one of them leaves behind, the next one finds."""
    yield from serving(shared_database_url, broker_url, tmp_path_factory.mktemp("deadlines"))


async def lines_of(database_url: str, run: str) -> list[str]:
    async with Database(fixed(database_url), schema="outlast", application="tests").pooled(max_connections=1) as opened:
        return await stored_lines(opened, run)


@pytest.mark.parametrize("agent", OFFENDERS)
async def test_a_run_ends_in_time_whatever_its_code_does_and_its_siblings_complete(
    service: Service, agent: str
) -> None:
    before = [service.submit("sibling", "5") for _ in range(SIBLINGS // 2)]
    offender = service.submit(agent, timeout_seconds=TIMEOUT_SECONDS)
    siblings = before + [service.submit("sibling", "5") for _ in range(SIBLINGS // 2)]

    response = service.wait_ended(offender)
    texts = {service.wait_ended(run).output_text for run in siblings}

    assert (response.status, response.error.code) == ("failed", "task_timeout")
    took, charged = service.row(offender, "extract(epoch FROM finished_at - started_at)::float8, charged_attempts")
    assert took >= TIMEOUT_SECONDS
    assert texts == {"0 1 2 3 4 "}
    assert {service.row(run, "charged_attempts") for run in siblings} == {(0,)}
    assert (charged > 0) == (agent in ("spins", "sleeps", "regex", "regex_in_a_thread"))
    for run in (offender, *siblings):
        check_log(await lines_of(service.database_url, run))


def stalled_by(service: Service, run: str) -> list[str]:
    """What the worker's log says of the stalls that this run has caused."""
    return [line for line in service.worker.said.splitlines() if '"child.stalled"' in line and run in line]


def test_a_stall_is_named_with_its_stack_and_the_worker_is_well_afterwards(service: Service) -> None:
    run = service.submit("spins", timeout_seconds=1)
    service.wait_ended(run)
    until_sync(lambda: stalled_by(service, run))
    assert "offenders.py" in stalled_by(service, run)[0] and "in spins" in stalled_by(service, run)[0]

    said = service.submit("sibling", "2")
    assert service.wait_ended(said).output_text == "0 1 "
    until_sync(lambda: len(agent_processes(service.worker.process.pid)) == 2)
    assert service.row(said, "attempt") == (1,)


def test_a_child_in_which_code_goes_on_is_replaced(service: Service) -> None:
    for agent, counted in (("swallows", "leaked_tasks"), ("sleeps_in_a_thread", "leaked_threads")):
        children, before = set(agent_processes(service.worker.process.pid)), service.counters().get(counted, 0)
        run = service.submit(agent)
        service.wait_said(run)
        service.client.responses.cancel(run)
        assert service.wait_ended(run).status == "cancelled"
        until_sync(lambda c=counted, b=before: service.counters().get(c, 0) > b)
        until_sync(lambda c=children: len(now := set(agent_processes(service.worker.process.pid))) == 2 and now != c)


def test_a_child_that_stands_still_is_killed_and_its_runs_go_on(service: Service) -> None:
    siblings = [service.submit("sibling", "8") for _ in range(4)]
    for run in siblings:
        service.wait_said(run)
    os.kill(agent_processes(service.worker.process.pid)[0], signal.SIGSTOP)

    assert {service.wait_ended(run).output_text for run in siblings} == {"0 1 2 3 4 5 6 7 "}
    assert {service.row(run, "charged_attempts") for run in siblings} == {(0,)}


def test_a_run_with_a_process_to_itself_may_block_it_until_its_time_is_up(
    database_url: str, redis_url: str, tmp_path: Path
) -> None:
    with ExitStack() as stack:
        env = {"OUTLAST_ISOLATION": "sleeps=process,spins=process", "OUTLAST_ISOLATED_CHILDREN": "2"}
        started = serving(database_url, redis_url, tmp_path, **env)
        stack.callback(lambda: next(started, None))
        service = next(started)
        blocking = [service.submit(agent, timeout_seconds=TIMEOUT_SECONDS) for agent in ("sleeps", "spins")]
        waiting = service.submit("sleeps", timeout_seconds=1)
        sibling = service.submit("sibling", "3")

        assert service.wait_ended(sibling).output_text == "0 1 2 "
        for run in blocking:
            response: Any = service.wait_ended(run)
            assert (response.error.code, service.row(run, "charged_attempts")) == ("task_timeout", (0,))
            assert response.output_text  # what it said before it blocked
        assert service.wait_ended(waiting).error.code == "task_timeout"
        assert service.row(waiting, "queue") == ("isolated",)
        until_sync(lambda: len(agent_processes(service.worker.process.pid)) == 4)
        assert service.wait_ended(service.submit("sibling", "1")).output_text == "0 "
