"""The checker is tested: with one promise broken it says so, and by the same blow unbroken it says nothing."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Generator
from pathlib import Path

import psycopg
import pytest

from outlast.shared.connections import Database
from tests.chaos import gates, ledger, sabotage, scenario
from tests.chaos.checker import Evidence, judge
from tests.chaos.checker.evidence import gather
from tests.chaos.ledger import Entry
from tests.support.processes import Part, Parts, agent_processes, parts
from tests.support.runs import submitted
from tests.support.waiting import until_sync

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="looks processes up in /proc")

TOKEN = "c1.1"
BEFORE, HELD, AFTER = scenario.CHAIN_STEPS[:3]


class Stage:
    """One run of a graph, which is held before its second step speaks."""

    def __init__(self, started: Parts, database_url: str, folder: Path) -> None:
        self.database_url = database_url
        self._started = started
        self._folder = folder

    def worker(self, broken: str | None, **env: str) -> Part:
        spoiled = {sabotage.VARIABLE: broken, "OUTLAST_PRELOAD": sabotage.MODULES} if broken else {}
        return self._started.worker(**spoiled, **env)

    def until(self, kind: str, step: str, attempt: int = 1) -> None:
        """Until the agent has noted it."""
        until_sync(lambda: any((e.kind, e.step, e.attempt) == (kind, step, attempt) for e in self.entries))

    def let_pass(self, attempt: int) -> None:
        gates.let_pass(self._folder, attempt)

    @property
    def entries(self) -> list[Entry]:
        return ledger.read(self._folder / "ledger")

    def found(self) -> set[str]:
        """The kinds of violations that the checker finds now."""
        return {violation.kind for violation in judge(self._evidence())}

    def sentences(self, kind: str) -> list[str]:
        return [violation.sentence for violation in judge(self._evidence()) if violation.kind == kind]

    def _evidence(self) -> Evidence:
        return gather(self.database_url, (), self.entries)


@pytest.fixture
def stage(database_url: str, redis_url: str, tmp_path: Path) -> Generator[Stage]:
    env = {
        "DATABASE_URL": database_url,
        "REDIS_URL": redis_url,
        "OUTLAST_AGENTS": "chain=tests.chaos.agents:chain",
        "OUTLAST_CHILDREN": "1",
        "OUTLAST_CONCURRENCY": "1",
        "OUTLAST_PRELOAD": "outlast.worker.agents.langgraph",
        "OUTLAST_LOG_LEVEL": "warning",
        ledger.VARIABLE: str(tmp_path / "ledger"),
        gates.VARIABLE: str(tmp_path),
        "CHAOS_PACE_SECONDS": "0.01",
    }
    with parts(env, tmp_path) as started:
        yield Stage(started, database_url, tmp_path)


# Its next beat is far away: it does not hear that its run is another's.
UNAWARE = {"OUTLAST_LEASE_SECONDS": "180", "OUTLAST_BEAT_SECONDS": "60"}
ELSEWHERE = {"OUTLAST_QUEUES": "elsewhere", "OUTLAST_BEAT_SECONDS": "0.2", "OUTLAST_LEASE_SECONDS": "20"}


def move_elsewhere(database_url: str) -> None:
    """Give the run to the other worker, as a sweep does whose time has come; who has it is not told."""
    with psycopg.connect(database_url, options="-csearch_path=outlast") as connection:
        connection.execute("DELETE FROM run_leases")
        connection.execute("UPDATE runs SET status = 'queued', ready = true, queue = 'elsewhere'")


@pytest.mark.parametrize("broken", ["append_without_fence", None])
async def test_words_of_a_replaced_attempt_in_the_log_are_noticed(
    stage: Stage, database: Database, broken: str | None
) -> None:
    first = stage.worker(broken, **UNAWARE)
    stage.worker(None, **ELSEWHERE)
    await submitted(database, agent=scenario.CHAIN, request={"input": TOKEN})
    stage.until(ledger.BEGIN, HELD)
    move_elsewhere(stage.database_url)
    stage.until(ledger.BEGIN, HELD, attempt=2)
    stage.let_pass(1)
    if broken:
        until_sync(lambda: "late" in stage.found())
    else:
        stage.until(ledger.SAY, HELD)
        until_sync(lambda: "lease.lost" in first.said)
        assert "late" not in stage.found()


@pytest.mark.parametrize("broken", ["steps_without_flush", None])
async def test_a_step_whose_words_are_lost_is_noticed(stage: Stage, database: Database, broken: str | None) -> None:
    worker = stage.worker(broken)
    await submitted(database, agent=scenario.CHAIN, request={"input": TOKEN})
    stage.until(ledger.BEGIN, HELD)
    stage.let_pass(2)
    with psycopg.connect(stage.database_url, options="-csearch_path=outlast") as connection:
        connection.execute("SELECT FROM run_heads FOR UPDATE")  # the log takes nothing; checkpoints do not need it
        stage.let_pass(1)
        stage.until(*((ledger.BEGIN, AFTER) if broken else (ledger.END, HELD)))
        [child] = agent_processes(worker.process.pid)
        os.kill(child, signal.SIGKILL)
    until_sync(is_over(stage.database_url))

    if broken:
        # The state has the words all the same, and the next attempt tells them again: as words of the first.
        sentences = stage.sentences("log")
        assert any(f"1|{TOKEN}|{HELD}|0 where attempt 2 writes" in sentence for sentence in sentences), sentences
    else:
        assert not stage.found()


def is_over(database_url: str) -> Callable[[], bool]:
    def ended() -> bool:
        with psycopg.connect(database_url) as connection:
            [status] = connection.execute("SELECT status FROM outlast.runs").fetchall()
            return status[0] == "completed"

    return ended
