"""The sweep: takes back what dead workers held, ends what is cancelled or out of time, wakes runs that waited for their
retry and threads that were forgotten, re-rings bells that were lost.

Every API replica and every worker runs one; of those that look at the same moment one leads. A sweep that is late or
missing delays a takeover and nothing else.
"""

from __future__ import annotations

import asyncio
import math
import random
from collections.abc import Sequence
from dataclasses import dataclass, field

import structlog

from . import endings
from .connections import PINNED_PLAN, Connection, Database
from .domain.errors import OutlastError
from .domain.ids import response_id
from .domain.overdue import Overdue
from .doorbell import Doorbell
from .rest import LOOK_ANYWAY_SECONDS, Rest
from .retention import Retention
from .settings import Settings
from .store import overdue, retries, sweeping, workers

log = structlog.get_logger()

_ENDED_A_LOOK = 50  # runs of each kind; what is left is ended by the next look, which is soon
_ENDED_AT_ONCE = 4
_GRACE_MARGIN_SECONDS = 0.4  # a worker that ends a run at the end of its grace is let finish


@dataclass(slots=True)
class Swept:
    """What one look found and did."""

    led: bool = False
    busy: bool = False
    """Something is ready or running, or will be within a beat: the next look is to be soon."""
    idle: bool = False
    """Nothing is queued or running, and nothing will have to be done before long."""
    ready_queues: list[str] = field(default_factory=list[str])
    overdue: list[Overdue] = field(default_factory=list[Overdue])
    """Runs that are to end."""


class Sweep:
    def __init__(self, database: Database, settings: Settings, doorbell: Doorbell, rest: Rest) -> None:
        self._database = database
        self._connection = database.dedicated(**PINNED_PLAN)
        self._settings = settings
        self._doorbell = doorbell
        self._rest = rest
        self._retention = Retention(database, settings)
        self._working_since: float | None = None
        self._looked_at = 0.0
        self._tidied_at = -math.inf
        self.taken_back = 0
        """Runs that this sweep took from dead workers."""
        self.ended = 0
        """Runs that it ended: cancelled or out of time, and their worker had not done so."""

    @property
    def counters(self) -> dict[str, int]:
        return {"runs_taken_back": self.taken_back, "runs_ended_by_sweep": self.ended}

    async def run_forever(self) -> None:
        """Look again and again until cancelled."""
        settings, missed = self._settings, ""
        try:
            while True:
                busy = True
                try:
                    busy, missed = (await self.look()).busy, ""
                except OutlastError as error:  # the database is away, or has another schema
                    if error.message != missed:  # not twice a second for as long as it lasts
                        log.warning("sweep.missed", error=error.message)
                    missed = error.message
                except Exception:  # the next look is soon
                    log.exception("sweep.broke")
                seconds, chance = settings.sweep_seconds if busy else settings.beat_seconds, random.uniform(0.9, 1.1)
                if self._rest.resting:  # a look came first: of a process that was stopped nobody knows what it missed
                    await self._rest.over(at_most=LOOK_ANYWAY_SECONDS * chance)
                else:
                    await asyncio.sleep(seconds * chance)
        finally:
            await self.close()

    async def close(self) -> None:
        await self._retention.close()
        await self._connection.close()

    async def look(self) -> Swept:
        """Look once. Raises Unavailable. Bells are rung after the transaction, which holds the leader's lock."""
        patient = self._has_been_patient()
        try:
            swept = await self._connection.run(lambda c: self._sweep(c, take_back=patient))
        except BaseException:
            self._working_since = None
            self._rest.stirred()  # nobody knows whether there is something to do
            raise
        for queue in swept.ready_queues:
            self._doorbell.ring_if_silent(queue)
        if swept.led:
            self._retention.start_if_due()
            if not swept.idle:
                self._rest.stir()
        await self._end_all(swept.overdue)
        return swept

    async def _end_all(self, found: Sequence[Overdue]) -> None:
        """End them outside of the leader's transaction: each takes a few statements, and its log may be long."""
        room = asyncio.Semaphore(_ENDED_AT_ONCE)

        async def end(run: Overdue) -> None:
            async with room:
                if not await endings.end(self._database, run, lease_seconds=self._settings.lease_seconds):
                    return
            log.warning("run.ended_by_sweep", run=response_id(run.run_id), reason=run.reason.value)
            self.ended += 1

        outcomes = await asyncio.gather(*map(end, found), return_exceptions=True)
        for run, error in zip(found, outcomes, strict=True):
            if isinstance(error, OutlastError):  # the next look tries again
                log.warning("run.not_ended", run=response_id(run.run_id), error=error.message)
            elif error is not None:
                log.error("run.not_ended", run=response_id(run.run_id), exc_info=error)

    def _has_been_patient(self) -> bool:
        """Whether the database has been answering for a whole lease.

        After an outage, or after this process was stopped, all leases look ended: their workers get the time to renew.
        """
        now = asyncio.get_running_loop().time()
        gap, self._looked_at = now - self._looked_at, now
        if self._working_since is None or gap > self._settings.lease_seconds / 2:
            self._working_since = now
        return now - self._working_since >= self._settings.lease_seconds

    def _is_time_to_tidy(self) -> bool:
        """What is hardly ever needed is looked for once a beat: it costs a probe for each thread that waits."""
        now = asyncio.get_running_loop().time()
        due = now - self._tidied_at >= self._settings.beat_seconds
        if due:
            self._tidied_at = now
        return due

    async def _sweep(self, connection: Connection, *, take_back: bool) -> Swept:
        async with connection.transaction():
            if not await sweeping.lead(connection):
                return Swept(busy=True)
            taken = await sweeping.take_back_expired(connection) if take_back else []
            await retries.wake(connection)
            if self._is_time_to_tidy():
                await sweeping.promote_orphans(connection)
                await workers.forget_silent(connection)
            found = await self._find_overdue(connection)
            ready = await sweeping.ready_queues(connection)
            busy = bool(ready or found) or await sweeping.anything_runs(connection)
            busy = busy or await retries.due_within(connection, self._settings.beat_seconds)
            idle = not busy and not await sweeping.anything_waits(connection)
        for run_id in taken:
            log.warning("run.taken_back", run=response_id(run_id), cause="lease_expired")
        self.taken_back += len(taken)
        return Swept(led=True, busy=busy, idle=idle, ready_queues=ready, overdue=found)

    async def _find_overdue(self, connection: Connection) -> list[Overdue]:
        settings = self._settings
        await overdue.cancel_abandoned(connection, after_seconds=settings.disconnect_seconds, limit=_ENDED_A_LOOK)
        grace = settings.grace_seconds + _GRACE_MARGIN_SECONDS
        return await overdue.find(connection, grace_seconds=grace, limit=_ENDED_A_LOOK)
