"""`outlast demo`: it keeps what it promises, and leaves nothing behind however it ends."""

from __future__ import annotations

import re
import signal
import sys
import tempfile
from collections.abc import Generator
from contextlib import closing
from pathlib import Path

import pytest

from tests.support.processes import ROOT, Part, processes_of
from tests.support.waiting import until_sync

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="looks processes up in /proc")


def demo(folder: Path, *, cwd: Path) -> Part:
    """What surrounds it would break it if it listened."""
    env = {"TMPDIR": str(folder), "DATABASE_URL": "postgresql://nowhere", "OUTLAST_AUTH": "api_keys", "COLUMNS": "90"}
    return Part(["demo"], env, folder / "demo.txt", cwd=cwd)


def left_behind(folder: Path) -> list[object]:
    return [*(path for path in folder.iterdir() if path.name != "demo.txt"), *processes_of(folder)]


@pytest.fixture
def temporary() -> Generator[Path]:
    """A folder with a short name: there are sockets in it."""
    with tempfile.TemporaryDirectory(prefix="outlast-tests-") as name:
        yield Path(name)
        until_sync(lambda: not left_behind(Path(name)))


def test_an_answer_outlives_its_worker_and_its_api(temporary: Path, tmp_path: Path) -> None:
    with closing(demo(temporary, cwd=tmp_path)) as part:  # where there is no example agent
        code = part.process.wait(120)
        said = part.said

    assert code == 0, said
    killed = [int(pid) for pid in re.findall(r"^ +kill  kill -9 (\d+)  \(.*outlast\.infra\.cli", said, re.MULTILINE)]
    assert len(killed) == 2
    assert re.search(r"pause  .*the dead worker's lease ends in \d\.\d s", said)
    resumed = re.search(r"resume  \d+\.\d s later .*: attempt 2 on pid\s+(\d+),\s+from\s+the\s+input", said)
    assert resumed is not None and int(resumed[1]) not in killed
    assert re.search(r"resume  \d+\.\d s later at the other API: GET\s.*stream=true&starting_after=\d+", said)
    assert len(re.findall(r"^ +✓  ", said, re.MULTILINE)) == 5 and "✗" not in said
    assert "All of it holds" in said
    assert "\x1b" not in said and "\r" not in said and "Traceback" not in said
    assert left_behind(temporary) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_nothing_is_left_of_a_demo_that_is_stopped(temporary: Path, number: signal.Signals) -> None:
    with closing(demo(temporary, cwd=ROOT)) as part:
        until_sync(lambda: list(temporary.glob("outlast-demo-*/worker-1.log")), seconds=60)

        code = part.stop(number)

    assert code == (130 if number == signal.SIGINT else -9)
    assert "Traceback" not in part.said
    if number == signal.SIGINT:
        assert left_behind(temporary) == []
