"""Runs that a worker hands back to the queue: those of a child that died, and those that it cannot or may not keep."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence, Set as AbstractSet
from types import MappingProxyType
from uuid import UUID

import structlog

from outlast.shared.background import Background
from outlast.shared.connections import Database
from outlast.shared.domain.errors import OutlastError
from outlast.shared.domain.ids import response_id
from outlast.shared.domain.runs import Lease
from outlast.shared.store import leases

log = structlog.get_logger()

_PAUSE_SECONDS = 0.5
_NO_REFUNDS: Mapping[Lease, float] = MappingProxyType({})


class Returns:
    def __init__(self, database: Database, counters: Counter[str], returned: Callable[[], Awaitable[None]]) -> None:
        self._database = database
        self._counters = counters
        self._returned = returned
        self._background = Background()
        self.leases: set[Lease] = set()
        """Those on their way."""

    def start(
        self,
        held: AbstractSet[Lease],
        cause: str,
        *,
        charge: bool = False,
        refunds: Mapping[Lease, float] = _NO_REFUNDS,
    ) -> None:
        """Hand them back until it is done, or the worker ends: nobody renews these leases, so they end by themselves.

        ``charge`` and ``refunds`` are those of `leases.release`.
        """
        self.leases |= held
        self._background.start(self._hand_back(list(held), cause, charge, refunds))

    async def wait(self, seconds: float) -> None:
        """Until all are back, or so long."""
        await self._background.wait(seconds)

    async def _hand_back(self, held: Sequence[Lease], cause: str, charge: bool, refunds: Mapping[Lease, float]) -> None:
        try:
            released = await self._release(held, cause, charge, refunds)
        finally:
            self.leases.difference_update(held)
        attempts = {lease.run_id: lease.attempt for lease in held}
        for run_id in released:
            log.warning("run.handed_back", run=response_id(run_id), attempt=attempts[run_id], cause=cause)
        self._counters["runs_handed_back"] += len(released)
        await self._returned()

    async def _release(
        self, held: Sequence[Lease], cause: str, charge: bool, refunds: Mapping[Lease, float]
    ) -> list[UUID]:
        while True:
            try:
                return await self._database.run(
                    lambda c: leases.release(c, held, cause=cause, charge=charge, refunds=refunds), patience_seconds=0
                )
            except OutlastError:
                await asyncio.sleep(_PAUSE_SECONDS)
