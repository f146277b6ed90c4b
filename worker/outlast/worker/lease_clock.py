"""When the leases of a worker were last renewed, as its children know it."""

from __future__ import annotations

import ctypes
from typing import Protocol


class Shared(Protocol):
    """One number in memory that the parent and a child share."""

    value: float


class LeaseClock:
    """Written by the parent after each renewal, read by a child, in seconds of the monotonic clock.

    Not a message: of a parent that is stopped or cut off none comes, and a child whose loop was held up reads how
    things are, not how they were.
    """

    def __init__(self, memory: Shared | None = None) -> None:
        # Not `or`: memory that holds 0 is false.
        self._memory = ctypes.c_double() if memory is None else memory

    def renewed(self, began: float) -> None:
        """All leases held when this renewal began last for their full time from then on, at least."""
        self._memory.value = began

    @property
    def renewed_at(self) -> float:
        return self._memory.value
