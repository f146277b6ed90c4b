"""``make chaos``: SEED, SEEDS, MINUTES, SMALL and BUSY from the environment."""

from __future__ import annotations

import asyncio
import os
import random
import subprocess
import sys
import tempfile
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from tests.chaos.campaign import Campaign, complaints
from tests.chaos.report import Report
from tests.chaos.world import SMALL, Size, running


def _say(line: str) -> None:
    print(line, flush=True)


async def _run(seed: int, seconds: float, size: Size, folder: Path) -> Report:
    async with running(size, folder) as world:
        return await Campaign(world, seed, _say).run(seconds)


def main() -> int:
    """One campaign after the other: SEEDS of them, from SEED on, beside as many processes that compute as BUSY says."""
    first = int(os.environ.get("SEED") or random.randrange(1_000_000))
    with _busy(int(os.environ.get("BUSY") or 0)):
        broken = [seed for seed in range(first, first + int(os.environ.get("SEEDS") or 1)) if not _holds(seed)]
    if broken:
        _say(f"\nSeeds that broke a promise: {broken}")
    return 1 if broken else 0


def _holds(seed: int) -> bool:
    seconds = 60 * float(os.environ.get("MINUTES") or 10)
    size = SMALL if os.environ.get("SMALL") else Size()
    folder = Path(tempfile.mkdtemp(prefix="chaos-"))
    report = asyncio.run(_run(seed, seconds, size, folder))
    _say("\n".join(["", *report.lines()]))
    (folder / "blows").write_text("".join(f"{b.at:.2f} {b.until:.2f} {b.name}: {b.target}\n" for b in report.blows))
    if report.violations:
        _say(f"\n{complaints(report.violations)}\n\nLogs and ledger: {folder}")
    return not report.violations


@contextmanager
def _busy(processes: int) -> Generator[None]:
    spinning = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(processes)]
    try:
        yield
    finally:
        for process in spinning:
            process.kill()
            process.wait()


if __name__ == "__main__":
    sys.exit(main())
