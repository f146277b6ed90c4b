"""`outlast dev`: which agent it asks by itself, and that one process holds its folder."""

from __future__ import annotations

import asyncio
import json
import os
from pathlib import Path

import pytest

from outlast.infra.cli import dev, supervised
from outlast.infra.cli.dev import Dev
from outlast.infra.embedded.locks import FileLock
from outlast.shared.settings import SettingsError, load
from tests.support.processes import ROOT, free_port


@pytest.mark.parametrize(
    ("agents", "hello", "asked"),
    [({}, None, 1), ({}, False, 0), ({"mine": "mine:agent"}, None, 0), ({"mine": "mine:agent"}, True, 1)],
)
async def test_by_itself_it_asks_the_example_only(
    agents: dict[str, str], hello: bool | None, asked: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    urls: list[str] = []
    monkeypatch.setattr(dev, "_say_hello", urls.append)
    started = Dev(load(agents=agents), 1, hello=hello)

    started.choose_agents()
    await started._greet()

    assert urls == ["http://127.0.0.1:1"] * asked


def test_a_second_one_leaves_the_note_of_the_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    config = load(agents={})
    folder = tmp_path / config.data_dir
    folder.mkdir()
    lock = FileLock(folder / "dev.lock")
    assert lock.try_acquire()
    lock.write_note(str(os.getpid()))
    supervised.note_running(config, supervised.RunningDev(os.getpid(), "http://127.0.0.1:7", None, None))

    with pytest.raises(
        SettingsError, match=rf"in use by process {os.getpid()}, `outlast dev` at http://127\.0\.0\.1:7:"
    ):
        dev.run(port=free_port(), hello=None)
    assert supervised.running_dev(config) is not None

    lock.release()


def test_a_note_that_was_left_behind_is_forgotten_at_the_next_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".outlast").mkdir()
    note = tmp_path / ".outlast/dev.json"
    note.write_text(json.dumps({"pid": os.getpid(), "url": "http://x", "database_url": None, "redis_url": None}))
    seen: list[bool] = []

    async def run(_self: Dev) -> int:
        seen.append(note.exists())
        return await asyncio.sleep(0, 0)

    monkeypatch.setattr(Dev, "run", run)
    assert dev.run(port=free_port(), hello=None) == 0
    assert seen == [False]


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".outlast").write_text("a file")

    with pytest.raises(SettingsError, match=r"\.outlast cannot be used: .*OUTLAST_DATA_DIR names another"):
        dev.run(port=free_port(), hello=None)
