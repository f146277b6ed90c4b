"""Results as files: which code, which machine, when, and every figure."""

from __future__ import annotations

import json
import os
import platform
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from bench.figures import Figure
from bench.stack import ROOT
from outlast.infra.embedded import Postgres

KEPT = ROOT / "bench/results"
SCRATCH = ROOT / "bench/out"


def write(figures: Mapping[str, Sequence[Figure]], *, whole: bool, kind: str = "") -> Path:
    """A whole run's figures are kept in the repository; others are put where git does not look. Returns where."""
    at = datetime.now(UTC)
    commit = _git("rev-parse", "HEAD")
    result = {
        "at": at.isoformat(timespec="seconds"),
        "commit": commit,
        "dirty": bool(_git("status", "--porcelain", "--", ".", ":!bench/results")),
        "machine": machine(),
        "figures": {case: [_plain(figure) for figure in found] for case, found in figures.items()},
    }
    folder = KEPT if whole else SCRATCH
    folder.mkdir(exist_ok=True)
    path = folder / f"{at:%Y-%m-%dT%H%M%S}-{kind}{commit[:10]}.json"
    path.write_text(json.dumps(result, indent=1) + "\n")
    return path.relative_to(ROOT)


def machine() -> dict[str, Any]:
    """What the figures depend on. Memory in GB."""
    pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "memory": round(pages / 2**30, 1),
        "kernel": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "postgres": Postgres(SCRATCH).version,
    }


def _plain(figure: Figure) -> dict[str, Any]:
    known = {name: value for name, value in asdict(figure).items() if value is not None}
    return known if figure.reached is None else {**known, "reached": figure.reached}


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(": ")[2] for line in lines if line.startswith("model name")), platform.machine())


def _git(*arguments: str) -> str:
    command = ["git", "-C", str(ROOT), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()
