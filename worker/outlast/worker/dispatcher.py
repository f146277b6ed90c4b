"""The half of a worker that never runs an agent: it claims what its executors can run now, and keeps the leases."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Set as AbstractSet
from uuid import UUID

import structlog

from outlast.shared.background import Background
from outlast.shared.connections import Database
from outlast.shared.domain.errors import OutlastError
from outlast.shared.domain.measures import Tally
from outlast.shared.domain.runs import Lease
from outlast.shared.doorbell import Doorbell
from outlast.shared.hints import Hints
from outlast.shared.rest import LOOK_ANYWAY_SECONDS, Rest
from outlast.shared.settings import Settings
from outlast.shared.store import claims, leases
from outlast.shared.sweep import Sweep

from .attempt import Outcome, Stop
from .background import first_of
from .holdings import Executor, Holdings
from .reports import Reports
from .returns import Returns

log = structlog.get_logger()

_CLAIM_LIMIT = 50  # runs taken in one statement


class Dispatcher:
    def __init__(self, database: Database, settings: Settings, doorbell: Doorbell) -> None:
        self._database = database
        self._settings = settings
        self._doorbell = doorbell
        self._hints = Hints(settings.required_redis_url(), settings.db_schema)
        self._rest = Rest(settings, self._hints)
        self._sweep = Sweep(database, settings, doorbell, self._rest)
        self._limits = claims.RunningLimits(settings.max_running_per_principal, settings.max_running_per_agent)
        self._held = Holdings()
        self.tally = Tally()
        """What this worker has done and measured since it started, its children's share included."""
        self._counters = self.tally.counters
        self._reports = Reports(database, settings, self._held, self.tally, self._sweep)
        self._owner, self.drain_asked = self._reports.owner, self._reports.drain_asked
        self._claiming = asyncio.Lock()
        self._claims_asked = 0
        self._claims_served = 0
        self._looked_for_begun = -math.inf
        self._may_own_more = False
        self._draining = False
        self.missing_since: float | None = None  # when beats began to fail; monotonic
        self._hurrying = asyncio.Event()
        self._cancel_heard = asyncio.Event()
        self._background = Background()
        self._returns = Returns(database, self._counters, self._look_after_return)

    # -- executors -----------------------------------------------------------------------------------------------------

    def add(self, executor: Executor) -> None:
        """It is ready: give it runs."""
        self._held.add(executor)
        self._background.start(self._claim_quietly())

    def lost(self, executor: Executor, cause: str, culprits: AbstractSet[Lease], *, stall: str | None = None) -> None:
        """It died, and took its attempts with it: their runs go back to the head of the queue at once.

        The culprits, as far as it had them, are charged. ``stall``: the cause for them alone, when it was killed
        because one of them held up the others. These get back the time that they have lost.
        """
        held, now = self._held.remove(executor), time.monotonic()
        self._counters["child_deaths"] += 1
        self._counters["stalls"] += stall is not None
        if charged := held.keys() & culprits:
            self._returns.start(charged, stall or cause, charge=True)
        if others := held.keys() - culprits:
            lost = {lease: now - held[lease] for lease in others} if stall else {}
            self._returns.start(others, cause, refunds=lost)

    def worn(self, by: str) -> None:
        """A child takes no more runs, because code of one goes on in it: in a task or in a thread."""
        self._counters[f"leaked_{by}s"] += 1

    def held_by(self, executor: Executor) -> AbstractSet[Lease]:
        return self._held.of(executor)

    def ended(self, lease: Lease, outcome: Outcome) -> None:
        """An attempt is over, and its slot is free."""
        if not self._held.end(lease):
            return
        self._counters[f"runs_{outcome.status}" if outcome.status else "attempts_without_end"] += 1
        self._counters.update(
            events=outcome.events, runs_retried=outcome.retried, deadline_kills=outcome.timed_out,
        )  # fmt: skip
        self._may_own_more |= outcome.status is None  # it was suspended, or could not even be read
        self._background.start(self._claim_quietly())

    async def _look_after_return(self) -> None:
        self._looked_for_begun = -math.inf
        await self._claim_quietly()
        for queue in self._settings.served_queues:  # this worker may be full, or have no child left
            self._doorbell.ring(queue)

    # -- claiming ------------------------------------------------------------------------------------------------------

    @property
    def slots(self) -> int:
        """How many runs this worker takes at once."""
        return 0 if self._draining else self._held.slots

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
        """Take what there is, up to the free slots, and start it; beyond them what another worker had begun."""
        if self._settings.isolated_worker_children:
            await self._fill(isolated=True)
        full = await self._fill(isolated=False)
        if full and not self._draining and not self._limits and self._is_time_to_look_for_begun():
            while (spare := self._held.spare(isolated=False)) and await self._take(
                min(spare, _CLAIM_LIMIT), isolated=False, begun=True
            ):
                pass

    async def _fill(self, *, isolated: bool) -> bool:
        """False: there was less than there are slots for."""
        while not self._draining and (free := self._held.free(isolated=isolated)):
            limit = min(free, _CLAIM_LIMIT)
            taken = await self._take(limit, isolated=isolated)
            if not taken or (taken < limit and not self._limits):
                return False
        return True

    def _is_time_to_look_for_begun(self) -> bool:
        """A full worker does so as often as somebody sweeps: each end of a run would be a second claim otherwise."""
        now = time.monotonic()
        due = now - self._looked_for_begun >= self._settings.sweep_seconds
        if due:
            self._looked_for_begun = now
        return due

    async def _take(self, limit: int, *, isolated: bool, begun: bool = False) -> int:
        """Claim so many at most, and start them. Returns how many it were."""
        claimed_at = time.monotonic()
        try:
            taken = await self._database.run(
                lambda c: claims.claim(
                    c,
                    queues=self._settings.isolated_queues if isolated else self._settings.shared_queues,
                    limit=limit,
                    owner=self._owner,
                    lease_seconds=self._settings.lease_seconds,
                    running_limits=self._limits,
                    begun=begun,
                ),
                patience_seconds=0,
            )
        except BaseException:
            self._may_own_more = True  # it may have been committed
            raise
        self._counters["runs_claimed"] += len(taken)
        if taken:
            self._rest.stir()
        if homeless := self._held.assign(taken, claimed_at, isolated=isolated, extra=begun):
            self._returns.start(set(homeless), "worker_changed")
        return len(taken)

    async def _claim_quietly(self) -> None:
        try:
            await self.ring()
        except OutlastError as error:  # the next beat looks again
            log.warning("claim.missed", error=error.message)

    # -- the beat ------------------------------------------------------------------------------------------------------

    async def beat_once(self) -> None:
        """Renew what is held, stop what is lost or cancelled, say that this worker lives, look for work."""
        await self._renew()
        await self._release_unknown()
        await self._reports.send(self.slots, draining=self._draining)
        await self.ring()

    def _hear_of_cancel(self, run_id: UUID) -> None:
        if any(lease.run_id == run_id for lease in self._held.leases):
            self._cancel_heard.set()

    async def _answer_cancels(self) -> None:
        """Renew at once when a run that is held here is to end: that tells which it is. Several at a time are one."""
        while True:
            await self._cancel_heard.wait()
            self._cancel_heard.clear()
            try:
                await self._renew()
            except OutlastError as error:  # the beat finds it
                log.warning("cancel.missed", error=error.message)

    async def _renew(self) -> None:
        held, began = self._held.leases, time.monotonic()
        if not held:
            return
        renewal = await self._database.run(
            lambda c: leases.renew(c, held, lease_seconds=self._settings.lease_seconds),
            patience_seconds=self._settings.beat_seconds,  # a restarted database has left dead connections behind
        )
        for executor in self._held.executors:
            executor.renewed(began)
        for lease in held:
            if lease not in renewal.held:
                self._held.stop(lease, Stop.LOST)
            elif lease in renewal.cancelled:
                self._held.stop(lease, Stop.CANCEL)

    async def _release_unknown(self) -> None:
        """Hand back what this worker owns and does not hold: of a claim whose answer was lost, and what it gave up."""
        if not self._may_own_more:
            return
        async with self._claiming:
            self._may_own_more = False
            try:
                owned = await self._database.run(lambda c: leases.owned_by(c, self._owner), patience_seconds=0)
            except BaseException:
                self._may_own_more = True
                raise
        if unknown := set(owned) - set(self._held.leases) - self._returns.leases:
            self._returns.start(unknown, "worker_let_go")

    async def _rest_while_idle(self) -> None:
        if self._held:
            self._rest.stirred()
        elif self._rest.resting:
            await self._reports.send(self.slots, draining=self._draining, resting_seconds=LOOK_ANYWAY_SECONDS)
            await self._rest.over(at_most=LOOK_ANYWAY_SECONDS)

    async def _beat_forever(self) -> None:
        while True:
            try:
                await self._rest_while_idle()
                await self.beat_once()
                self.missing_since = None
            except OutlastError as error:
                if self.missing_since is None:  # once in an outage
                    log.warning("beat.missed", error=error.message)
                self.missing_since = self.missing_since or time.monotonic()
            except Exception:  # without beats every lease of this worker ends
                log.exception("beat.broke")
                self.missing_since = self.missing_since or time.monotonic()
            await asyncio.sleep(self._settings.beat_seconds)

    # -- its life ------------------------------------------------------------------------------------------------------

    async def run_forever(self) -> None:
        """Beat, sweep and listen until cancelled."""
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._beat_forever())
                group.create_task(self._sweep.run_forever())
                group.create_task(self._answer_cancels())
                group.create_task(self._hints.listen(awake=self._rest.stirred, cancelled=self._hear_of_cancel))
        finally:
            await self._hints.close()

    async def drain(self) -> None:
        """Claim no more and ask agents to stop where they can go on; after a while have all that runs handed back."""
        self._draining = True
        if self._held:
            log.info("worker.draining", runs=len(self._held), seconds=self._settings.drain_seconds)
            self._stop_all(Stop.DRAIN)
            await first_of(self._held.until_empty(self._settings.drain_seconds), self._hurrying.wait())
            self._stop_all(Stop.RELEASE)
            await self._held.until_empty(self._settings.lease_seconds)

    def hurry(self) -> None:
        """Do not wait for agents any longer: hand back now."""
        self._hurrying.set()

    def _stop_all(self, why: Stop) -> None:
        for lease in self._held.leases:
            self._held.stop(lease, why)

    async def close(self) -> None:
        """After the executors have ended: hand back what none of them could, and be forgotten."""
        self._draining = True
        if held := self._held.clear():
            self._returns.start(set(held), "worker_drained")
        await self._returns.wait(self._settings.lease_seconds)
        await self._reports.withdraw()
