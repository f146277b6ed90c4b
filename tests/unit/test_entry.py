"""The program `outlast`, from its first moment on."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

INTERRUPTED_WHILE_IMPORTING = """
import os, signal
os.kill(os.getpid(), signal.SIGINT)
"""


def test_ctrl_c_while_the_commands_are_imported_ends_it_quietly(tmp_path: Path) -> None:
    (tmp_path / "typer.py").write_text(INTERRUPTED_WHILE_IMPORTING)  # in place of the first package that they import
    ended = subprocess.run(
        [sys.executable, "-c", "from outlast.infra.entry import main; main()"],
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )

    assert (ended.returncode, ended.stdout, ended.stderr) == (130, "", "")
