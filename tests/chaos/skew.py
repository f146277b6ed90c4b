"""A worker whose clock is wrong: in its children only, by way of the agents' module. The product does not know."""

from __future__ import annotations

import os
import time

VARIABLE = "CHAOS_SKEW_SECONDS"


def apply() -> None:
    """Shift what `time.time()` and `time.time_ns()` say in this process by as much as the environment asks for."""
    seconds = float(os.environ.get(VARIABLE, "0"))
    if seconds:
        clock, clock_ns = time.time, time.time_ns
        time.time = lambda: clock() + seconds
        time.time_ns = lambda: clock_ns() + int(seconds * 1e9)
