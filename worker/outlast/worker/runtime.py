"""What executes runs in one process: it claims up to its free slots, keeps its leases, and hands back the rest."""

from __future__ import annotations

import asyncio
import os
import socket
import uuid
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager

import structlog

from outlast.agent import Agent
from outlast.shared.connections import Database, fixed
from outlast.shared.domain.errors import Unavailable
from outlast.shared.domain.runs import Lease
from outlast.shared.settings import Settings
from outlast.shared.store import leases, runs, schema

from .attempt import Attempt, Stop
from .flusher import Flusher

log = structlog.get_logger()

_CLAIM_LIMIT = 50  # runs taken in one statement


class Runtime:
    def __init__(self, database: Database, agents: Mapping[str, Agent], settings: Settings) -> None:
        self._database = database
        self._agents = agents
        self._settings = settings
        self._flusher = Flusher(database, settings)
        self._owner = f"{socket.gethostname()}:{os.getpid()}:{uuid.uuid4().hex[:8]}"
        # By lease: a run that was lost may be claimed again here while its lost attempt is still ending.
        self._attempts: dict[Lease, tuple[Attempt, asyncio.Task[None]]] = {}
        self._claiming = asyncio.Lock()
        self._claims_asked = 0
        self._claims_served = 0
        self._draining = False

    @property
    def free_slots(self) -> int:
        return 0 if self._draining else self._settings.concurrency - len(self._attempts)

    async def ring(self) -> None:
        """There may be work: claim. Returns when a claim that began after this call has committed, whatever it took."""
        self._claims_asked += 1
        mine = self._claims_asked
        async with self._claiming:
            if self._claims_served < mine:  # else a claim made for a later call has served this one too
                self._claims_served = self._claims_asked
                await self.claim_once()

    async def claim_once(self) -> None:
        """Take what there is, up to the free slots, and start it."""
        while (free := self.free_slots) > 0:
            limit = min(free, _CLAIM_LIMIT)
            claimed = await self._database.run(
                lambda c: runs.claim(
                    c,
                    queues=self._settings.queues,
                    limit=limit,
                    owner=self._owner,
                    lease_seconds=self._settings.lease_seconds,
                )
            )
            for run in claimed:
                self._start(Attempt(run, self._agents, self._database, self._flusher))
            if len(claimed) < limit:
                return

    def _start(self, attempt: Attempt) -> None:
        task = asyncio.create_task(self._attempt(attempt))
        self._attempts[attempt.lease] = attempt, task

    async def _attempt(self, attempt: Attempt) -> None:
        try:
            await attempt.run()
        except Unavailable:
            log.warning("attempt.abandoned", reason="the database is away; the lease will end")
        except Exception:  # the lease will end, and another attempt be made
            log.exception("attempt.abandoned")
        finally:
            del self._attempts[attempt.lease]
        await self._claim_quietly()

    async def beat_once(self) -> None:
        """Renew what is held, stop what is lost or cancelled, take back what silent workers held, look for work."""
        await self._renew()
        await self._database.run(leases.take_back_expired, patience_seconds=0)
        await self._database.run(runs.promote_orphans, patience_seconds=0)
        await self.ring()

    async def _renew(self) -> None:
        held = {lease: attempt for lease, (attempt, _) in self._attempts.items()}
        if not held:
            return
        renewal = await self._database.run(
            lambda c: leases.renew(c, list(held), lease_seconds=self._settings.lease_seconds),
            patience_seconds=0,
        )
        for lease, attempt in held.items():
            if lease not in renewal.held and lease in self._attempts:
                attempt.stop(Stop.LOST)
            elif lease in renewal.cancelled:
                attempt.stop(Stop.CANCEL)

    async def _beat_forever(self) -> None:
        while True:
            await asyncio.sleep(self._settings.beat_seconds)
            try:
                await self.beat_once()
            except Unavailable as error:
                log.warning("beat.missed", error=error.message)
            except Exception:  # without beats every lease of this process ends
                log.exception("beat.broke")

    async def _claim_quietly(self) -> None:
        try:
            await self.ring()
        except Unavailable as error:  # the next beat looks again
            log.warning("claim.missed", error=error.message)

    async def drain(self) -> None:
        """Claim no more; let runs go on for a while, then hand them back to the head of the queue."""
        self._draining = True
        tasks = [task for _, task in self._attempts.values()]
        if tasks:
            log.info("worker.draining", runs=len(tasks))
            await asyncio.wait(tasks, timeout=self._settings.drain_seconds)
        for attempt, _ in list(self._attempts.values()):
            attempt.stop(Stop.DRAIN)
        if rest := [task for _, task in self._attempts.values()]:
            await asyncio.wait(rest, timeout=self._settings.lease_seconds)

    @asynccontextmanager
    async def running(self) -> AsyncGenerator[Runtime]:
        loops = [asyncio.create_task(self._flusher.run_forever()), asyncio.create_task(self._beat_forever())]
        await self._claim_quietly()
        try:
            yield self
        finally:
            await self.drain()
            for loop in loops:
                loop.cancel()
            await asyncio.gather(*loops, return_exceptions=True)


@asynccontextmanager
async def open_runtime(settings: Settings, agents: Mapping[str, Agent]) -> AsyncGenerator[Runtime]:
    """A runtime at work on the database that the settings name; drained at the end."""
    database = Database(
        fixed(settings.required_database_url()),
        schema=settings.db_schema,
        application="outlast worker",
        pin_plan=True,
    )
    async with database.pooled(max_connections=settings.worker_connections):
        await database.run(schema.check, patience_seconds=30)
        async with Runtime(database, agents, settings).running() as runtime:
            yield runtime
