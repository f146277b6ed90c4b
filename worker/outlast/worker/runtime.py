"""What executes runs in one process: an attempt for each lease it is given, and one flusher for all of them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager

import structlog

from outlast.shared.connections import Database, fixed
from outlast.shared.domain.errors import OutlastError, Unavailable
from outlast.shared.domain.runs import Lease, Run
from outlast.shared.settings import Settings
from outlast.shared.store import runs, schema

from .agents.adapter import Adapter
from .attempt import Attempt, Outcome, Stop
from .background import Background
from .executing import execute_as
from .flusher import Flusher

log = structlog.get_logger()

Ended = Callable[[Lease, Outcome], None]


class Runtime:
    """Runs what it is told to. Claiming, and keeping the leases, is the dispatcher's."""

    def __init__(self, database: Database, agents: Mapping[str, Adapter], settings: Settings, ended: Ended) -> None:
        self._database = database
        self._agents = agents
        self._settings = settings
        self._ended = ended
        self._flusher = Flusher(database, settings)
        # By lease: a run that was lost may be claimed again here while its lost attempt is still ending.
        self._attempts: dict[Lease, Attempt | None] = {}  # None: its run is being read
        self._stopped_early: dict[Lease, Stop] = {}
        self._background = Background()

    def start(self, leases: Sequence[Lease]) -> None:
        """Begin an attempt for each of these leases. ``ended`` is called once for every one, however it ends."""
        self._attempts |= dict.fromkeys(leases)
        self._background.start(self._start(leases))

    def stop(self, lease: Lease, why: Stop) -> None:
        """End this attempt; one that has ended already is not worth a word."""
        if attempt := self._attempts.get(lease):
            attempt.stop(why)
        elif lease in self._attempts:
            self._stopped_early[lease] = why

    async def _start(self, leases: Sequence[Lease]) -> None:
        found: list[Run] = []
        try:
            patience = self._settings.lease_seconds
            found = await self._database.run(lambda c: runs.read_held(c, leases), patience_seconds=patience)
        except OutlastError as error:
            log.warning("runs.not_read", runs=len(leases), error=error.message)
        except Exception:  # their slots must not stay taken, and their leases not be renewed for ever
            log.exception("runs.not_read", runs=len(leases))
        for run in found:
            attempt = Attempt(run, self._agents, self._database, self._flusher, self._settings.max_attempts)
            self._attempts[attempt.lease] = attempt
            if why := self._stopped_early.pop(attempt.lease, None):
                attempt.stop(why)
            self._background.start(self._attempt(attempt))
        for lease in set(leases) - {Lease(run.run_id, run.attempt) for run in found}:
            self._end(lease, Outcome())

    async def _attempt(self, attempt: Attempt) -> None:
        outcome = Outcome()
        execute_as(attempt.lease)
        try:
            outcome = await attempt.run()
        except Unavailable:
            log.warning("attempt.abandoned", reason="the database is away; the lease will end")
        except Exception:  # the lease will end, and another attempt be made
            log.exception("attempt.abandoned")
        finally:
            self._end(attempt.lease, outcome)

    def _end(self, lease: Lease, outcome: Outcome) -> None:
        del self._attempts[lease]
        self._stopped_early.pop(lease, None)
        self._ended(lease, outcome)

    @asynccontextmanager
    async def running(self) -> AsyncGenerator[Runtime]:
        flushing = asyncio.create_task(self._flusher.run_forever())
        try:
            yield self
        finally:
            await self._background.cancel()
            flushing.cancel()
            await asyncio.wait({flushing})


@asynccontextmanager
async def open_runtime(settings: Settings, agents: Mapping[str, Adapter], ended: Ended) -> AsyncGenerator[Runtime]:
    """A runtime on the database that the settings name. What still runs at the end is given up as it is."""
    database = Database(
        fixed(settings.required_database_url()),
        schema=settings.db_schema,
        application="outlast worker",
        pin_plan=True,
    )
    async with database.pooled(max_connections=settings.worker_connections):
        await database.run(schema.check, patience_seconds=30)
        async with Runtime(database, agents, settings, ended).running() as runtime:
            yield runtime
