"""What a parent says of its leases reaches its children."""

from __future__ import annotations

import multiprocessing

from outlast.worker.lease_clock import LeaseClock


def test_two_clocks_on_the_same_memory_tell_the_same_time() -> None:
    memory = multiprocessing.RawValue("d")
    parents, childs = LeaseClock(memory), LeaseClock(memory)
    parents.renewed(12.5)
    assert childs.renewed_at == 12.5
