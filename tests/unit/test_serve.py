"""`outlast serve`: what it refuses, where it listens, and when it gives a part up."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
import tempfile
from pathlib import Path

import pytest
from typer.testing import CliRunner

from outlast.infra.cli import app, process, serve, supervisor
from outlast.infra.cli.process import CannotStart, Process
from outlast.infra.cli.supervisor import Supervisor, environment, until_asked_to_stop
from outlast.shared.settings import SettingsError
from tests.support.processes import free_port
from tests.support.waiting import until

COMPLETE = {"DATABASE_URL": "postgresql://nobody@127.0.0.1:1/none", "OUTLAST_AGENTS": "a=m:a", "OUTLAST_AUTH": "none"}


@pytest.mark.parametrize(
    ("missing", "told"),
    [
        ("DATABASE_URL", "DATABASE_URL is not set.*LAKEBASE_INSTANCE_NAME"),
        ("OUTLAST_AGENTS", "OUTLAST_AGENTS is not set"),
        ("OUTLAST_AUTH", "OUTLAST_AUTH is not set"),
    ],
)
def test_what_is_missing_is_named_before_anything_starts(
    missing: str, told: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    for name, value in COMPLETE.items():
        if name != missing:
            monkeypatch.setenv(name, value)
    with pytest.raises(SettingsError, match=told):
        serve.run(port=free_port())


def test_a_taken_port_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    for name, value in COMPLETE.items():
        monkeypatch.setenv(name, value)
    with socket.socket() as taken:
        taken.bind(("0.0.0.0", 0))
        taken.listen()
        with pytest.raises(SettingsError, match="Address already in use"):
            serve.run(port=taken.getsockname()[1])


def test_a_folder_that_it_cannot_have_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    for name, value in COMPLETE.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "none"))
    with pytest.raises(SettingsError, match=r"none.*TMPDIR"):
        serve.run(port=free_port())


@pytest.mark.parametrize(
    ("arguments", "env", "port"),
    [
        ([], {}, 8000),
        ([], {"PORT": "7001"}, 7001),
        ([], {"PORT": "7001", "DATABRICKS_APP_PORT": "7002"}, 7002),
        (["--port", "7003"], {"PORT": "7001", "DATABRICKS_APP_PORT": "7002"}, 7003),
    ],
)
def test_it_listens_where_the_host_says(
    arguments: list[str], env: dict[str, str], port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []

    def run(*, port: int) -> int:
        asked.append(port)
        return 0

    monkeypatch.setattr(serve, "run", run)
    for name in ("PORT", "DATABRICKS_APP_PORT"):
        monkeypatch.delenv(name, raising=False)
    assert CliRunner().invoke(app, ["serve", *arguments], env=env).exit_code == 0
    assert asked == [port]


@pytest.mark.parametrize(("found", "told"), [(None, {"OUTLAST_MLFLOW": "false"}), (object(), {})])
def test_an_api_names_no_traces_where_mlflow_is_not_installed(
    found: object, told: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def find_spec(_name: str) -> object:
        return found

    monkeypatch.setattr(supervisor, "find_spec", find_spec)
    given = {"MLFLOW_TRACKING_URI": "http://mlflow"}
    assert environment("api", given) == given | told
    assert environment("worker", given) == given


class Counting(Process):
    """A part that counts its starts in a file, and dies."""

    def __init__(self, folder: Path) -> None:
        program = 'open("starts", "a").write("x"); raise SystemExit(3)'
        super().__init__("part", [sys.executable, "-c", program], {}, cwd=folder)
        self._starts = folder / "starts"

    @property
    def starts(self) -> int:
        return len(self._starts.read_text()) if self._starts.exists() else 0


async def test_a_part_that_is_never_ready_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "_PAUSE_SECONDS", (0.0,))
    part = Counting(tmp_path)
    with pytest.raises(CannotStart, match="part ended with exit code 3, 4 times, and was never ready"):
        await part.keep_running(tries=4)
    assert part.starts == 4


async def test_a_part_that_was_ready_once_is_started_again_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process, "_PAUSE_SECONDS", (0.0,))
    part = Counting(tmp_path)
    part.mark_ready()
    keeping = asyncio.create_task(part.keep_running(tries=2))

    async def started_often() -> bool:
        return part.starts > 4

    await until(started_often)
    assert not keeping.done()
    await part.stop()
    await keeping


async def test_a_part_that_says_why_it_cannot_start_is_not_tried_again(tmp_path: Path) -> None:
    program = (
        'import os; open("starts", "a").write("x"); '
        "from outlast.infra.cli.supervised import tell_refusal; tell_refusal('Agent mine: not there'); os._exit(1)"
    )
    part = Process("part", [sys.executable, "-c", program], os.environ, cwd=tmp_path)

    with pytest.raises(CannotStart, match=r"^Agent mine: not there$"):
        await part.keep_running()
    assert (tmp_path / "starts").read_text() == "x"


ENDS_WHEN_ASKED_TWICE = """
import pathlib, signal
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
for times in range(2):
    pathlib.Path(f"asked-{times}").touch()
    signal.sigwait([signal.SIGTERM])
pathlib.Path("asked-2").touch()
"""


async def test_whoever_asks_twice_for_the_end_hurries_the_parts(tmp_path: Path) -> None:
    part = Process("part", [sys.executable, "-c", ENDS_WHEN_ASKED_TWICE], {}, cwd=tmp_path)
    hurried = Supervisor()
    hurried.processes.append(part)

    async def work() -> None:
        try:
            await part.run()
        finally:
            await part.stop(20)

    async def asked(times: int) -> None:
        async def seen() -> bool:
            return (tmp_path / f"asked-{times}").exists()

        await until(seen)

    serving = asyncio.create_task(until_asked_to_stop(work(), asked_again=hurried.hurry))
    for times in (0, 1):
        await asked(times)
        signal.raise_signal(signal.SIGTERM)
    await serving
    assert (tmp_path / "asked-2").exists()
