"""Where a step can be held: it goes on when a file is made, which a test does at the moment that it is about."""

from __future__ import annotations

import os
from pathlib import Path

from tests.support.waiting import until

VARIABLE = "CHAOS_GATES"
"""A folder; unset, nobody is held."""
HELD = "step1"


async def passed(step: str, attempt: int) -> None:
    """Until this attempt may go on with this step."""
    folder = os.environ.get(VARIABLE)
    if folder and step == HELD:

        async def is_open() -> bool:
            return _gate(Path(folder), attempt).exists()

        await until(is_open, seconds=60)


def let_pass(folder: Path, attempt: int) -> None:
    _gate(folder, attempt).touch()


def _gate(folder: Path, attempt: int) -> Path:
    return folder / f"attempt-{attempt}"
