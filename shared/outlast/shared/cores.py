"""How many cores this process may use: a container's share is often less than the machine has."""

from __future__ import annotations

import math
import os
from pathlib import Path

_CGROUPS = Path("/sys/fs/cgroup")


def cores(cgroups: Path = _CGROUPS) -> int:
    """Those it may be scheduled on, or fewer where its container is given less time than they have. At least 1."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    share = _share(cgroups)
    return max(1, allowed if share is None else min(allowed, math.ceil(share)))


def _share(cgroups: Path) -> float | None:
    """Cores' worth of time that the container gets, by either version of control groups; None: there is no limit."""
    for quota_file, period_file in (("cpu.max", "cpu.max"), ("cpu/cpu.cfs_quota_us", "cpu/cpu.cfs_period_us")):
        try:
            quota = (cgroups / quota_file).read_text().split()[0]
            period = (cgroups / period_file).read_text().split()[-1]
            return None if quota in ("max", "-1") else int(quota) / int(period)
        except (OSError, ValueError, IndexError, ZeroDivisionError):  # another system, or the other version
            continue
    return None
