"""On a terminal the log is obeyed by nothing, and whatever an event's text says is no line of its own."""

from __future__ import annotations

import logging
import re

import pytest
import structlog

from outlast.shared import logs
from outlast.shared.settings import load

EVIL = "\x1b]0;title\x07\x1b[2J\x9b31m\r\u202e"
FORGED = "2025-06-14T09:00:00Z [info     ] run.finished                   status=completed"


def to_console() -> None:
    logs.configure(load(log_format="console", agents={}), part="worker")


def told(capsys: pytest.CaptureFixture[str]) -> list[str]:
    """The lines. None has anything that a terminal would obey."""
    said = capsys.readouterr().err
    assert re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]", said) is None
    return said.rstrip("\n").split("\n")


def test_fields_say_what_they_hold_and_no_more(capsys: pytest.CaptureFixture[str]) -> None:
    to_console()
    structlog.get_logger().error("some.event", name=f"{EVIL}\n{FORGED}", **{f"a{EVIL}": [EVIL]})

    [line] = told(capsys)
    assert "name='␛]0;title␇␛[2J\ufffd31m␍\ufffd\\n2025" in line


def test_what_an_agent_logs_is_one_event(capsys: pytest.CaptureFixture[str]) -> None:
    to_console()
    logging.getLogger("an.agent").error("asked: %s", f"{EVIL}\n{FORGED}")

    first, second = told(capsys)
    assert "asked: ␛]0;" in first
    assert second.startswith(f"    {FORGED}")


@pytest.mark.parametrize("stack_info", [False, True])
def test_so_is_a_traceback(capsys: pytest.CaptureFixture[str], stack_info: bool) -> None:
    to_console()
    try:
        raise ValueError(f"{EVIL}\n{FORGED}")
    except ValueError:
        structlog.get_logger().exception("agent.failed")
        logging.getLogger("an.agent").exception("failed", stack_info=stack_info)

    lines = told(capsys)
    assert sum(FORGED in line for line in lines) == 2
    assert sum(not line.startswith("    ") for line in lines if line) == 2, "one for each event"
