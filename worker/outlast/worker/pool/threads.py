"""Which of another process's threads is at work, as far as the system tells."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")

_TELLS = Path("/proc/self/task").exists()
_SAMPLE_SECONDS = 0.2
_USER_TIME, _SYSTEM_TIME = 11, 12  # places in /proc/PID/task/TID/stat after the command's name


async def at_work(pid: int, threads: Mapping[int, T]) -> T | None:
    """Of these threads, by their numbers, what is done in the one that computes most; None if none does.

    Where the system does not tell: what is done in the only one there is.
    """
    before = {number: _ticks(pid, number) for number in threads}
    await asyncio.sleep(_SAMPLE_SECONDS if threads else 0)
    spent = {number: _ticks(pid, number) - ticks for number, ticks in before.items()}
    most = max(spent, key=spent.__getitem__, default=None)
    if most is not None and (spent[most] > 0 or (len(threads) == 1 and not _TELLS)):
        return threads[most]
    return None


def _ticks(pid: int, thread: int) -> int:
    try:
        stat = Path(f"/proc/{pid}/task/{thread}/stat").read_text()
    except OSError:
        return 0
    fields = stat.rpartition(")")[2].split()
    return int(fields[_USER_TIME]) + int(fields[_SYSTEM_TIME])
