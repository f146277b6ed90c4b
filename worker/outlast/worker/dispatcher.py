"""The half of a worker that never runs an agent: it claims what its executors can run now, and keeps the leases."""

from __future__ import annotations

import asyncio
import os
import socket
import uuid
from collections import Counter
from collections.abc import Sequence
from importlib.metadata import version
from typing import Protocol

import structlog

from outlast.shared.connections import Database
from outlast.shared.domain.errors import OutlastError
from outlast.shared.domain.ids import response_id
from outlast.shared.domain.runs import Lease
from outlast.shared.doorbell import Doorbell
from outlast.shared.settings import Settings
from outlast.shared.store import claims, leases, workers
from outlast.shared.sweep import Sweep

from .attempt import Outcome, Stop
from .background import Background

log = structlog.get_logger()

_CLAIM_LIMIT = 50  # runs taken in one statement
_RELEASE_PAUSE_SECONDS = 0.5


class Executor(Protocol):
    """What runs attempts: a child process, or, in tests, this one. It reports each end to `Dispatcher.ended`."""

    @property
    def slots(self) -> int:
        """How many runs it takes at once; 0 while it takes none."""
        ...

    def start(self, leases: Sequence[Lease]) -> None: ...

    def stop(self, lease: Lease, why: Stop) -> None: ...


class Dispatcher:
    def __init__(self, database: Database, settings: Settings, doorbell: Doorbell) -> None:
        self._database = database
        self._settings = settings
        self._doorbell = doorbell
        self._sweep = Sweep(database, settings, doorbell)
        self._limits = claims.RunningLimits(settings.max_running_per_principal, settings.max_running_per_agent)
        self._host = socket.gethostname()
        self._version = version("outlast")
        self._owner = f"{self._host}:{os.getpid()}:{uuid.uuid4().hex[:8]}"
        self._executors: dict[Executor, set[Lease]] = {}
        self._held: dict[Lease, Executor] = {}
        self._claiming = asyncio.Lock()
        self._claims_asked = 0
        self._claims_served = 0
        self._claim_unanswered = False
        self._draining = False
        self._changed = asyncio.Event()
        self._background = Background()
        self._counters: Counter[str] = Counter()

    # -- executors -----------------------------------------------------------------------------------------------------

    def add(self, executor: Executor) -> None:
        """It is ready: give it runs."""
        self._executors[executor] = set()
        self._background.start(self._claim_quietly())

    def lost(self, executor: Executor, cause: str, executing: Lease | None) -> None:
        """It died, and took its attempts with it: their runs go back to the head of the queue at once.

        Charged is the one whose code was executing; if that is not known, each of them.
        """
        held = self._executors.pop(executor, set())
        for lease in held:
            del self._held[lease]
        self._counters["child_deaths"] += 1
        self._tell_changed()
        charged = {executing} if executing in held else held
        for attempts, charge in ((charged, True), (held - charged, False)):
            if attempts:
                self._background.start(self._hand_back(list(attempts), cause, charge=charge))

    def ended(self, lease: Lease, outcome: Outcome) -> None:
        """An attempt is over, and its slot is free."""
        executor = self._held.pop(lease, None)
        if executor is None:
            return
        self._executors[executor].discard(lease)
        self._counters[f"runs_{outcome.status}" if outcome.status else "attempts_without_end"] += 1
        self._counters["events"] += outcome.events
        self._tell_changed()
        self._background.start(self._claim_quietly())

    async def _hand_back(self, held: Sequence[Lease], cause: str, *, charge: bool) -> None:
        """Until it is done: nobody renews these leases any more, so when all fails they end by themselves."""
        loop = asyncio.get_running_loop()
        ends = loop.time() + self._settings.lease_seconds
        while loop.time() < ends:
            try:
                released = await self._database.run(
                    lambda c: leases.release(c, held, cause=cause, charge=charge), patience_seconds=0
                )
            except OutlastError:
                await asyncio.sleep(_RELEASE_PAUSE_SECONDS)
                continue
            for run_id in released:
                log.warning("run.handed_back", run=response_id(run_id), cause=cause)
            self._counters["runs_handed_back"] += len(released)
            await self._claim_quietly()
            for queue in self._settings.queues:  # this worker may be full, or have no child left
                self._doorbell.ring(queue)
            return

    # -- claiming ------------------------------------------------------------------------------------------------------

    @property
    def slots(self) -> int:
        """How many runs this worker takes at once."""
        return 0 if self._draining else sum(executor.slots for executor in self._executors)

    @property
    def _free(self) -> dict[Executor, int]:
        if self._draining:
            return {}
        free = {executor: executor.slots - len(held) for executor, held in self._executors.items()}
        return {executor: count for executor, count in free.items() if count > 0}

    async def ring(self) -> None:
        """There may be work: claim. Returns when a claim that began after this call has committed, whatever it took.

        Raises Unavailable and SchemaMismatch.
        """
        self._claims_asked += 1
        mine = self._claims_asked
        async with self._claiming:
            if self._claims_served < mine:  # else a claim made for a later call has served this one too
                self._claims_served = self._claims_asked
                await self._claim()

    async def _claim(self) -> None:
        """Take what there is, up to the free slots, and start it."""
        while free := sum(self._free.values()):
            limit = min(free, _CLAIM_LIMIT)
            taken = await self._take(limit)
            self._counters["runs_claimed"] += len(taken)
            self._assign(taken)
            if not taken or (len(taken) < limit and not self._limits):
                return

    async def _take(self, limit: int) -> list[Lease]:
        try:
            return await self._database.run(
                lambda c: claims.claim(
                    c,
                    queues=self._settings.queues,
                    limit=limit,
                    owner=self._owner,
                    lease_seconds=self._settings.lease_seconds,
                    running_limits=self._limits,
                ),
                patience_seconds=0,
            )
        except BaseException:
            self._claim_unanswered = True  # it may have been committed
            raise

    def _assign(self, taken: Sequence[Lease]) -> None:
        """Each run to the executor with the most free slots. A child that died meanwhile is not among them."""
        given: dict[Executor, list[Lease]] = {}
        homeless: list[Lease] = []
        for lease in taken:
            free = self._free
            if not free:
                homeless.append(lease)
                continue
            executor = max(free, key=free.__getitem__)
            self._held[lease] = executor
            self._executors[executor].add(lease)
            given.setdefault(executor, []).append(lease)
        for executor, assigned in given.items():
            executor.start(assigned)
        if homeless:
            self._background.start(self._hand_back(homeless, "worker_changed", charge=False))

    async def _claim_quietly(self) -> None:
        try:
            await self.ring()
        except OutlastError as error:  # the next beat looks again
            log.warning("claim.missed", error=error.message)

    # -- the beat ------------------------------------------------------------------------------------------------------

    async def beat_once(self) -> None:
        """Renew what is held, stop what is lost or cancelled, say that this worker lives, look for work."""
        await self._renew()
        await self._give_up_unknown()
        await self._report()
        await self.ring()

    async def _renew(self) -> None:
        held = list(self._held)
        if not held:
            return
        renewal = await self._database.run(
            lambda c: leases.renew(c, held, lease_seconds=self._settings.lease_seconds),
            patience_seconds=self._settings.beat_seconds,  # a restarted database has left dead connections behind
        )
        for lease in held:
            executor = self._held.get(lease)
            if executor is None:
                continue
            if lease not in renewal.held:
                executor.stop(lease, Stop.LOST)
            elif lease in renewal.cancelled:
                executor.stop(lease, Stop.CANCEL)

    async def _give_up_unknown(self) -> None:
        """A claim whose answer was lost may have been committed: hand back what it took, which nobody here runs."""
        if not self._claim_unanswered:
            return
        async with self._claiming:
            owned = await self._database.run(lambda c: leases.owned_by(c, self._owner), patience_seconds=0)
            self._claim_unanswered = False
        if unknown := [lease for lease in owned if lease not in self._held]:
            self._background.start(self._hand_back(unknown, "claim_unanswered", charge=False))

    async def _report(self) -> None:
        taken_back = {"runs_taken_back": self._sweep.taken_back}
        report = workers.Report(
            owner=self._owner,
            host=self._host,
            pid=os.getpid(),
            version=self._version,
            queues=self._settings.queues,
            children=len(self._executors),
            slots=self.slots,
            running=len(self._held),
            draining=self._draining,
            counters={**self._counters, **taken_back},
        )
        await self._database.run(lambda c: workers.report(c, report), patience_seconds=0)

    async def _beat_forever(self) -> None:
        while True:
            try:
                await self.beat_once()
            except OutlastError as error:
                log.warning("beat.missed", error=error.message)
            except Exception:  # without beats every lease of this worker ends
                log.exception("beat.broke")
            await asyncio.sleep(self._settings.beat_seconds)

    # -- its life ------------------------------------------------------------------------------------------------------

    async def run_forever(self) -> None:
        """Beat and sweep until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._beat_forever())
            group.create_task(self._sweep.run_forever())

    async def drain(self) -> None:
        """Claim no more; let runs go on for a while, then have them handed back to the head of the queue."""
        self._draining = True
        if self._held:
            log.info("worker.draining", runs=len(self._held))
        await self._until_idle(self._settings.drain_seconds)
        for lease, executor in list(self._held.items()):
            executor.stop(lease, Stop.DRAIN)
        await self._until_idle(self._settings.lease_seconds)

    async def close(self) -> None:
        """After the executors have ended: hand back what none of them could, and be forgotten."""
        self._draining = True
        if held := list(self._held):
            self._held.clear()
            await self._hand_back(held, "worker_drained", charge=False)
        await self._background.wait(self._settings.lease_seconds)
        try:
            await self._database.run(lambda c: workers.forget(c, self._owner), patience_seconds=0)
        except OutlastError as error:
            log.warning("worker.not_forgotten", error=error.message)

    async def _until_idle(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                while self._held:
                    await self._changed.wait()
        except TimeoutError:
            return

    def _tell_changed(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()
