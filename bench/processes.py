"""Processes: those under load, what they use, and those that make the load."""

from __future__ import annotations

import asyncio
import os
import resource
from collections.abc import Callable, Coroutine
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import uvloop

P = ParamSpec("P")
T = TypeVar("T")
_PROC = Path("/proc")
_TICKS = os.sysconf("SC_CLK_TCK")
CAN_LOOK_INSIDE = (_PROC / "self/smaps_rollup").exists()
"""Memory and processor time of other processes are read from /proc, which Linux has."""


async def in_own_process(load: Callable[P, Coroutine[Any, Any, T]], *arguments: P.args, **named: P.kwargs) -> T:
    """Await a module's coroutine function in a new process, so that its work is not ours."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return await asyncio.get_running_loop().run_in_executor(pool, _run, load, arguments, named)


def _run(load: Callable[..., Coroutine[Any, Any, T]], arguments: Any, named: Any) -> T:
    raise_file_limit()
    return uvloop.run(load(*arguments, **named))


def raise_file_limit() -> None:
    """Every stream is an open file."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 65_536) if hard > 0 else 65_536, hard))


def tree(pid: int) -> list[int]:
    """A process and all that descend from it."""
    found = [pid]
    for parent in found:
        for task in (_PROC / str(parent) / "task").glob("*/children"):
            found += [int(child) for child in task.read_text().split()]
    return found


def memory(pid: int) -> int:
    """Bytes of a process and its descendants; what several of them share counts once (PSS)."""
    return sum(_pss(process) for process in tree(pid))


def _pss(pid: int) -> int:
    lines = (_PROC / str(pid) / "smaps_rollup").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:"))


def processor_seconds(pid: int) -> float:
    """Seconds that a process has computed so far, in itself and in the kernel."""
    fields = (_PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS
