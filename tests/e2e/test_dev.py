"""`outlast dev`: what a newcomer sees, and what happens when its parts are killed."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Generator
from contextlib import closing
from functools import cached_property
from pathlib import Path

import httpx
import openai
import pytest

from tests.support.processes import ROOT, Part, free_port, processes_of
from tests.support.waiting import until_sync


class Dev:
    """One `outlast dev` in a folder of its own, with a space in its name."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "my project"
        self.folder.mkdir(exist_ok=True)
        self.port = free_port()
        self.starts = 0
        self.more: dict[str, str] = {}
        self.part: Part | None = None

    @property
    def env(self) -> dict[str, str]:
        return {
            "PYTHONPATH": str(ROOT),
            "OUTLAST_AGENTS": "count=tests.e2e.agents:count",
            "OUTLAST_LEASE_SECONDS": "1.5",
            "OUTLAST_BEAT_SECONDS": "0.3",
            **self.more,
        }

    def start(self, *options: str, wait_for: str = "stop      Ctrl-C") -> Part:
        self.starts += 1
        output = self.folder / f"dev-{self.starts}.txt"
        part = Part(["dev", "--port", str(self.port), *options], self.env, output, cwd=self.folder)

        def ready() -> bool:
            assert part.process.poll() is None or wait_for in part.said, part.said
            return wait_for in part.said

        until_sync(ready, seconds=90)
        self.part = part
        return part

    def outlast(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "outlast.infra.cli", *arguments]
        return subprocess.run(
            command,
            env={**os.environ, **self.env},
            cwd=self.folder,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    @property
    def said(self) -> str:
        return self.part.said if self.part else ""

    def close(self) -> None:
        self.client.close()
        if self.part is not None:
            self.part.stop(signal.SIGINT)
            self.part.close()

    @cached_property
    def client(self) -> openai.OpenAI:
        return openai.OpenAI(base_url=f"http://127.0.0.1:{self.port}/v1", api_key="none", timeout=60)


@pytest.fixture
def fresh(tmp_path: Path) -> Generator[Dev]:
    """One that the test starts itself."""
    with closing(Dev(tmp_path)) as dev:
        yield dev


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Generator[Dev]:
    """One that several tests use; it has greeted."""
    with closing(Dev(tmp_path_factory.mktemp("dev"))) as dev:
        dev.start("--hello")
        yield dev


def test_dev_shows_the_main_job_by_itself(running: Dev) -> None:
    said = running.said

    assert re.search(r"postgres +18\.\d+ in \.outlast/postgres", said)
    assert re.search(
        rf"ready +http://127\.0\.0\.1:{running.port} +\(\d+\.\d s\)\n(?: +loading count = .* … \d+ s\n)*"
        r" +worker ready \(\d+\.\d s\)",
        said,
    )
    assert re.search(r"hello +\"What happens .*\n +0-\d+.*\n.* 0 1 2.*\n +completed +resp_", said)


def test_questions_and_runs_are_at_hand_on_the_command_line(running: Dev) -> None:
    asked = running.outlast("ask", "3")

    assert (asked.returncode, asked.stdout) == (0, "0 1 2 \n")
    assert re.search(r"^resp_[0-9a-f]{32}\n.*done +\d+\.\d s, \d+ events", asked.stderr, re.DOTALL)
    run = asked.stderr.split()[0]
    assert run in running.outlast("runs", "list").stdout
    assert "response.completed" in running.outlast("runs", "show", run).stdout
    assert running.outlast("runs", "follow", run).stdout == "0 1 2 \n"
    assert running.outlast("runs", "cancel", run).returncode == 1
    assert running.outlast("runs", "show", "resp_nonsense").returncode == 1


def test_a_killed_part_is_named_and_started_again_and_its_run_goes_on(running: Dev) -> None:
    worker = int(re.search(r"kill -9 (\d+) \(worker\)", running.said)[1])  # type: ignore[index]
    responses = running.client.responses
    run = responses.create(input="100", background=True).id
    until_sync(lambda: responses.retrieve(run).status == "in_progress")

    os.kill(worker, signal.SIGKILL)

    until_sync(lambda: "worker was killed by SIGKILL; starting it again" in running.said)
    until_sync(lambda: responses.retrieve(run).status == "completed", seconds=40)
    response = responses.retrieve(run)
    assert response.output_text == "".join(f"{n} " for n in range(100))
    assert response.model_extra is not None and response.model_extra["attempt_number"] == 2


def test_a_second_dev_is_refused_clearly_while_the_first_runs(running: Dev) -> None:
    same_port = running.outlast("dev", "--port", str(running.port))
    other_port = running.outlast("dev", "--port", str(free_port()))

    assert (same_port.returncode, same_port.stderr.strip()) == (
        1,
        f"outlast: {running.port} is in use: PORT={running.port + 1} make run",
    )
    assert other_port.returncode == 1
    assert re.fullmatch(
        rf"outlast: .*/\.outlast is in use by process \d+, `outlast dev` at http://127\.0\.0\.1:{running.port}: "
        r"end that first, or start this one with another folder \(OUTLAST_DATA_DIR\)\n",
        other_port.stderr,
    )
    assert running.outlast("ask", "2").stdout == "0 1 \n", "commands still find the first"
    assert running.outlast("runs", "list").returncode == 0
    assert (running.folder / ".outlast/dev.json").stat().st_mode & 0o777 == 0o600
    assert httpx.get(f"http://127.0.0.1:{running.port}/ready").status_code == 200


def test_what_is_wrong_with_an_agent_is_told_once_with_its_line_and_ends_the_start(fresh: Dev) -> None:
    (fresh.folder / "mine.py").write_text("import os\nimport langchian_openai\n")
    fresh.more = {"OUTLAST_AGENTS": "mine=mine:agent"}

    ended = fresh.outlast("dev", "--port", str(fresh.port))

    told = (
        "Agent mine: importing mine failed: No module named 'langchian_openai', at mine.py:2 (import langchian_openai)"
    )
    assert ended.returncode == 1
    assert ended.stdout.splitlines()[-1] == "stopped"
    assert ended.stderr.splitlines()[-1] == f"outlast: {told}"
    assert [json.loads(line)["event"] for line in ended.stderr.splitlines()[:-1]] == ["worker.cannot_start"]
    assert "starting it again" not in ended.stdout


def test_with_servers_of_ones_own_it_starts_in_a_new_folder_and_asks_no_agent_but_the_example(
    fresh: Dev, database_url: str, redis_url: str
) -> None:
    fresh.more = {"DATABASE_URL": database_url, "REDIS_URL": redis_url}

    part = fresh.start()

    assert fresh.outlast("runs", "list").stderr == "No runs.\n", "a question may make an agent act"
    assert "hello" not in fresh.said
    assert fresh.outlast("ask", "2").stdout == "0 1 \n"
    assert part.stop(signal.SIGINT) == 0
    assert "Traceback" not in fresh.said
    assert sorted(path.name for path in (fresh.folder / ".outlast").iterdir()) == ["dev.lock"]


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="looks processes up in /proc")
def test_dev_killed_alone_blocks_no_later_start_and_ctrl_c_leaves_nothing_behind(fresh: Dev) -> None:
    first = fresh.start("--no-hello")
    run = fresh.client.responses.create(input="2").id
    first.kill()
    first.close()

    second = fresh.start("--no-hello")

    assert fresh.client.responses.retrieve(run).output_text == "0 1 "
    assert second.stop(signal.SIGINT) == 0
    assert "Traceback" not in fresh.said
    until_sync(lambda: not processes_of(fresh.folder))


def test_ask_says_when_nobody_answers(tmp_path: Path) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{closed.getsockname()[1]}"
        asked = subprocess.run(
            [sys.executable, "-m", "outlast.infra.cli", "ask", "x", "--url", url],
            cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip

    assert asked.returncode == 1
    assert asked.stderr.startswith("outlast: ") and "Traceback" not in asked.stderr
