"""`outlast serve` as a host runs it: one command, one port, SIGTERM; the database elsewhere, the broker its own."""

from __future__ import annotations

import os
import re
import signal
import threading
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import openai
import pytest

from tests.support.processes import ROOT, Part, alive, descendants, free_port
from tests.support.waiting import until_sync

ENV = {
    "PYTHONPATH": str(ROOT),
    "OUTLAST_AGENTS": "count=tests.e2e.agents:count",
    "OUTLAST_AUTH": "none",
    "OUTLAST_LEASE_SECONDS": "1.5",
    "OUTLAST_BEAT_SECONDS": "0.3",
    "OUTLAST_CHILDREN": "1",
    "OUTLAST_PRELOAD": "",
    "OUTLAST_LOG_LEVEL": "warning",
}


class App:
    def __init__(self, part: Part, port: int) -> None:
        self.part = part
        self.client = openai.OpenAI(base_url=f"http://127.0.0.1:{port}/v1", api_key="none", timeout=60, max_retries=6)

    @property
    def pid(self) -> int:
        return self.part.process.pid

    def part_named(self, name: str) -> int:
        """The process of the API or the worker."""
        commands = {pid: Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0") for pid in descendants(self.pid)}
        (found,) = (pid for pid, words in commands.items() if words[3:4] == [name.encode()] and b"-m" in words)
        return found


@contextmanager
def served(database_url: str, folder: Path) -> Generator[App]:
    port = free_port()
    env = {**ENV, "DATABASE_URL": database_url, "DATABRICKS_APP_PORT": str(port), "PORT": "1"}
    part = Part(["serve"], env, folder / "said.txt", cwd=folder)

    def ready() -> bool:
        assert part.process.poll() is None, part.said
        return "ready     " in part.said

    try:
        until_sync(ready, seconds=60)
        with (app := App(part, port)).client:
            yield app
    finally:
        part.close()


@pytest.fixture(scope="module")
def app(shared_database_url: str, tmp_path_factory: pytest.TempPathFactory) -> Generator[App]:
    with served(shared_database_url, tmp_path_factory.mktemp("serve")) as running:
        yield running


def numbers(count: int) -> str:
    return "".join(f"{number} " for number in range(count))


def test_it_says_once_that_it_is_ready_and_answers(app: App) -> None:
    [line] = [line for line in app.part.said.splitlines() if line.startswith("ready")]
    assert re.fullmatch(r"ready +http://0\.0\.0\.0:\d+ +\(\d+\.\d s\) +broker: Valkey [\d.]+ of its own", line)
    assert app.client.responses.create(input="4").output_text == numbers(4)
    response = app.client.responses.create(input="5", background=True)
    until_sync(lambda: app.client.responses.retrieve(response.id).status == "completed")
    assert app.client.responses.retrieve(response.id).output_text == numbers(5)


def test_a_worker_that_is_killed_in_mid_stream_is_replaced_and_the_stream_goes_on(app: App) -> None:
    api, killed, seen, text = app.part_named("api"), 0, [], ""
    for event in app.client.responses.create(input="100", stream=True, background=True):
        seen.append(event.sequence_number)
        if event.type == "response.output_text.delta" and not killed:
            os.kill(killed := app.part_named("worker"), signal.SIGKILL)
        if event.type == "response.completed":
            text = event.response.output_text
    assert (seen, text) == (list(range(len(seen))), numbers(100))
    assert app.part_named("api") == api
    assert "worker was killed by SIGKILL; starting it again" in app.part.said


def test_an_api_that_is_killed_is_replaced_and_its_runs_go_on(app: App) -> None:
    run = app.client.responses.create(input="50", background=True).id
    worker = app.part_named("worker")
    os.kill(app.part_named("api"), signal.SIGKILL)
    until_sync(lambda: "api was killed by SIGKILL; starting it again" in app.part.said)
    until_sync(lambda: app.client.responses.retrieve(run).status == "completed")
    assert app.part_named("worker") == worker


def test_sigterm_lets_runs_end_and_their_streams_too_and_leaves_nothing_behind(app: App) -> None:
    """The last test of this app: it ends it."""
    streaming, ended = threading.Event(), list[str]()

    def follow() -> None:
        for event in app.client.responses.create(input="100", stream=True):
            ended[:] = [event.type]
            if event.type == "response.output_text.delta":
                streaming.set()

    following = threading.Thread(target=follow)
    following.start()
    assert streaming.wait(20)
    family = descendants(app.pid)
    assert len(family) >= 5  # the API, the worker, its fork server and child, Valkey

    assert app.part.stop(signal.SIGTERM, seconds=15) == 0

    following.join(20)
    assert ended == ["response.completed"]
    until_sync(lambda: not any(map(alive, family)))
    assert app.part.said.endswith("stopped\n") and "Traceback" not in app.part.said
