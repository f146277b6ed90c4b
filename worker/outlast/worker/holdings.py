"""Which executor of a worker has which attempt, and which has room for more."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Protocol

from outlast.shared.domain.runs import AgentKind, Lease

from .attempt import Stop


class Executor(Protocol):
    """What runs attempts: a child process, or, in tests, this one. It reports each end to `Dispatcher.ended`."""

    @property
    def slots(self) -> int:
        """How many runs it takes at once; 0 while it takes none."""
        ...

    @property
    def isolated(self) -> bool:
        """It is for agents whose runs share a process with none."""
        ...

    @property
    def agents(self) -> Mapping[str, AgentKind]:
        """What it has loaded."""
        ...

    def start(self, leases: Sequence[Lease], claimed_at: float) -> None:
        """``claimed_at``: when their claim began, by the monotonic clock."""
        ...

    def stop(self, lease: Lease, why: Stop) -> None: ...

    def renewed(self, began: float) -> None:
        """All of its leases were renewed, by a renewal that began then."""
        ...


class Holdings:
    def __init__(self) -> None:
        self._of: dict[Executor, set[Lease]] = {}
        self._executor: dict[Lease, Executor] = {}
        self._claimed_at: dict[Lease, float] = {}
        self._changed = asyncio.Event()

    @property
    def executors(self) -> Sequence[Executor]:
        return list(self._of)

    @property
    def leases(self) -> list[Lease]:
        return list(self._executor)

    def __len__(self) -> int:
        return len(self._executor)

    def __contains__(self, lease: object) -> bool:
        return lease in self._executor

    def add(self, executor: Executor) -> None:
        self._of[executor] = set()

    def of(self, executor: Executor) -> frozenset[Lease]:
        return frozenset(self._of.get(executor, ()))

    def claimed_at(self, lease: Lease) -> float:
        """When its claim began, by the monotonic clock."""
        return self._claimed_at[lease]

    def remove(self, executor: Executor) -> dict[Lease, float]:
        """Returns what it had, and when each was claimed."""
        leases = {lease: self._claimed_at.pop(lease) for lease in self._of.pop(executor, set())}
        for lease in leases:
            del self._executor[lease]
        self._tell_changed()
        return leases

    def end(self, lease: Lease) -> bool:
        """Its slot is free. False: nobody had it."""
        executor = self._executor.pop(lease, None)
        if executor is None:
            return False
        self._of[executor].discard(lease)
        del self._claimed_at[lease]
        self._tell_changed()
        return True

    def clear(self) -> list[Lease]:
        """Returns what there was."""
        leases = self.leases
        for lease in leases:
            self.end(lease)
        return leases

    def stop(self, lease: Lease, why: Stop) -> None:
        if executor := self._executor.get(lease):
            executor.stop(lease, why)

    # -- room ----------------------------------------------------------------------------------------------------------

    @property
    def slots(self) -> int:
        """How many runs all of them take at once."""
        return sum(executor.slots for executor in self._of)

    def free(self, *, isolated: bool) -> int:
        """How many more runs those executors can take."""
        return sum(max(room, 0) for room in self._room(isolated, extra=False).values())

    def spare(self, *, isolated: bool) -> int:
        """How many more they can take if every one is over-committed by half: for runs whose worker was lost."""
        return sum(max(room, 0) for room in self._room(isolated, extra=True).values())

    def assign(
        self, leases: Sequence[Lease], claimed_at: float, *, isolated: bool = False, extra: bool = False
    ) -> list[Lease]:
        """Start each run where the most room is. Returns those for which there is none: an executor died meanwhile."""
        given: dict[Executor, list[Lease]] = {}
        room = self._room(isolated, extra=extra)
        homeless: list[Lease] = []
        for lease in leases:
            executor = max(room, key=room.__getitem__, default=None)
            if executor is None or room[executor] <= 0:
                homeless.append(lease)
                continue
            room[executor] -= 1
            self._executor[lease] = executor
            self._claimed_at[lease] = claimed_at
            self._of[executor].add(lease)
            given.setdefault(executor, []).append(lease)
        for executor, assigned in given.items():
            executor.start(assigned, claimed_at)
        return homeless

    def _room(self, isolated: bool, *, extra: bool) -> dict[Executor, int]:
        return {
            executor: executor.slots + (executor.slots // 2 if extra else 0) - len(held)
            for executor, held in self._of.items()
            if executor.isolated is isolated
        }

    # -- waiting -------------------------------------------------------------------------------------------------------

    async def until_empty(self, seconds: float) -> None:
        """Until nothing is held, or so long."""
        try:
            async with asyncio.timeout(seconds):
                while self._executor:
                    await self._changed.wait()
        except TimeoutError:
            return

    def _tell_changed(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()
