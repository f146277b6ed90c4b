"""``make chaos``: SEED and MINUTES from the environment."""

from __future__ import annotations

import asyncio
import os
import random
import sys
import tempfile
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
    seed = int(os.environ.get("SEED") or random.randrange(1_000_000))
    seconds = 60 * float(os.environ.get("MINUTES") or 10)
    size = SMALL if os.environ.get("SMALL") else Size()
    folder = Path(tempfile.mkdtemp(prefix="chaos-"))
    report = asyncio.run(_run(seed, seconds, size, folder))
    _say("\n".join(["", *report.lines()]))
    (folder / "blows").write_text("".join(f"{b.at:.2f} {b.until:.2f} {b.name}: {b.target}\n" for b in report.blows))
    if report.violations:
        _say(f"\n{complaints(report.violations)}\n\nLogs and ledger: {folder}")
    return 1 if report.violations else 0


if __name__ == "__main__":
    sys.exit(main())
