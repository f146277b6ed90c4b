"""What a child process prints becomes events of its parent's log, whatever in it prints and however it ends."""

from __future__ import annotations

import json
import multiprocessing
import subprocess
import sys
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pytest

from outlast.shared import logs
from outlast.shared.settings import load
from outlast.worker.pool import output
from tests.support.waiting import until_sync

FORGED = '{"event": "run.finished", "status": "completed"}'
DIVERTED = """
import os, subprocess, sys
from multiprocessing.connection import Connection
from outlast.worker.pool.output import divert

own = divert(Connection(int(sys.argv[1]), readable=False))
print("of print", end=" ")
print("and its end ☃")
print("of the error stream", file=sys.stderr)
subprocess.run(["echo", "of a subprocess"], check=True)
os.write(1, b"of C\\n")
print("of the log", file=own)
print("the last")
os._exit(1)
"""


class Log:
    """The worker's log in one form, while something is printed into a pipe."""

    def __init__(self, capsys: pytest.CaptureFixture[str], form: Any) -> None:
        self._capsys = capsys
        # Not even a log of errors alone hides what agents print.
        logs.configure(load(log_format=form, log_level="error", agents={}), part="worker")

    def of(self, *pieces: bytes) -> list[str]:
        """The lines of the log when a process has written these pieces and has ended."""
        reading, writing = multiprocessing.Pipe(duplex=False)
        thread = output.log_lines(reading, 7)
        for piece in pieces:
            subprocess.run(["cat"], input=piece, stdout=writing.fileno(), check=True)
        return self.until_closed(thread, writing)

    def until_closed(self, thread: Any, writing: Connection) -> list[str]:
        writing.close()
        thread.join(30)
        assert not thread.is_alive()
        return self._capsys.readouterr().err.splitlines()


def texts(lines: list[str]) -> list[str]:
    events = [json.loads(line) for line in lines]
    assert {(event["event"], event["level"], event["part"], event["pid"]) for event in events} <= {
        ("agent.printed", "info", "worker", 7)
    }
    return [event["text"] for event in events]


def test_each_line_is_an_event_and_none_is_forged(capsys: pytest.CaptureFixture[str]) -> None:
    said = f"asked: x\n{FORGED}\r\n\n\x1b[2J\xe9 ".encode("latin-1")

    assert texts(Log(capsys, "json").of(said, b"end")) == ["asked: x", FORGED, "\x1b[2J\ufffd end"]


def test_on_a_terminal_a_line_begins_with_whose_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    first, second = Log(capsys, "console").of(b"\x1b]0;title\x07\rhi\n2025-06-14T09:00:00Z [info     ] run.finished\n")

    assert first.endswith("Z [agent 7] ␛]0;title␇␍hi")
    assert second.endswith("Z [agent 7] 2025-06-14T09:00:00Z [info     ] run.finished")


def test_what_does_not_end_is_told_in_pieces(capsys: pytest.CaptureFixture[str]) -> None:
    said = texts(Log(capsys, "json").of(b"x" * 200_000))

    assert "".join(said) == "x" * 200_000 and len(said) > 1


def test_what_is_followed_by_silence_is_told(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(output, "_SILENCE_SECONDS", 0.05)
    log = Log(capsys, "json")
    reading, writing = multiprocessing.Pipe(duplex=False)
    thread = output.log_lines(reading, 7)
    subprocess.run(["printf", "go on? "], stdout=writing.fileno(), check=True)
    said = until_sync(lambda: capsys.readouterr().err)

    assert texts([said]) == ["go on?"]
    assert log.until_closed(thread, writing) == []


def test_everything_a_process_writes_goes_there_and_its_log_does_not(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    log = Log(capsys, "json")
    reading, writing = multiprocessing.Pipe(duplex=False)
    thread = output.log_lines(reading, 7)
    command = [sys.executable, "-c", DIVERTED, str(writing.fileno())]
    with (tmp_path / "log").open("w") as file:  # in which one can seek, as in no pipe
        ended = subprocess.run(command, pass_fds=[writing.fileno()], stdout=file, stderr=file, timeout=60, check=False)

    assert texts(log.until_closed(thread, writing)) == [
        "of print and its end ☃",
        "of the error stream",
        "of a subprocess",
        "of C",
        "the last",
    ]
    assert (ended.returncode, (tmp_path / "log").read_text()) == (1, "of the log\n")
