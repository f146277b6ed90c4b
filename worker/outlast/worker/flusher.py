"""From the agents' emissions to the log: one flusher for all runs of a process, batching as naturally as they come.

A flush carries whatever is waiting, and the next begins when it has returned: one commit of latency when little
happens, larger batches when much does. At most one flush is in flight, so no run is ever in two.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Sequence
from uuid import UUID

import structlog

from outlast.shared.connections import Database
from outlast.shared.domain.errors import OutlastError
from outlast.shared.domain.ids import response_id
from outlast.shared.domain.measures import FLUSH_EVENTS, FLUSH_RUNS, FLUSH_SECONDS, Tally
from outlast.shared.domain.runs import Lease, Run
from outlast.shared.settings import Settings
from outlast.shared.store import events, runs

from .run_log import RUN_BYTES, RunLog

log = structlog.get_logger()

_FLUSH_BYTES = 2**20  # characters in one flush: more would keep everybody waiting for one statement
_FINISH_PATIENCE_SECONDS = 3600.0  # a result is worth waiting for: until the lease is taken, nobody else has it


class Flusher:
    def __init__(self, database: Database, settings: Settings, tally: Tally) -> None:
        self.tally = tally
        self.buffer_events = settings.buffer_events
        self.buffer_bytes = settings.buffer_bytes
        self._min_interval = settings.flush_min_interval_ms / 1000
        self._database = database
        self._connection = database.dedicated()
        self._open: dict[UUID, RunLog] = {}
        self._waiting: dict[UUID, RunLog] = {}
        self._flying: set[RunLog] = set()
        self._something_waits = asyncio.Event()

    def open(self, run: Run, lost: Callable[[], None]) -> RunLog:
        """The log of a claimed run. ``lost`` is called once if the run turns out to be another's."""
        if earlier := self._open.get(run.run_id):  # the run was lost and came back here: one log of it may write
            earlier.lose()
        self._open[run.run_id] = run_log = RunLog(self, run, lost)
        return run_log

    def close(self, run_log: RunLog) -> None:
        """The attempt is over: nothing more of this log is to be stored."""
        self.leave(run_log)
        if self._open.get(run_log.lease.run_id) is run_log:
            del self._open[run_log.lease.run_id]

    def wake(self, run_log: RunLog) -> None:
        self._waiting[run_log.lease.run_id] = run_log
        self._something_waits.set()

    def leave(self, run_log: RunLog) -> None:
        """Flush this log no more."""
        if self._waiting.get(run_log.lease.run_id) is run_log:
            del self._waiting[run_log.lease.run_id]

    def in_flight(self, run_log: RunLog) -> bool:
        return run_log in self._flying

    async def run_forever(self) -> None:
        try:
            while True:
                await self._something_waits.wait()
                await asyncio.sleep(0)  # what is emitted in the same turn comes along
                try:
                    await self.flush_once()
                except Exception:  # a loop that ends would hold every run of this process up for ever
                    log.exception("flush.broke")
                if self._min_interval:
                    await asyncio.sleep(self._min_interval)
        finally:
            await self._connection.close()

    async def flush_once(self) -> None:
        """Store what is waiting now, in one transaction."""
        self._something_waits.clear()
        logs = self._next_logs()
        if not logs:
            return
        self._flying = set(logs.values())
        batch = [events.Append(run_id, run_log.lease.attempt, run_log.take()) for run_id, run_log in logs.items()]
        began = time.monotonic()
        accepted = await self._store(batch)
        self._measure(batch, time.monotonic() - began)
        self._flying = set()
        for append in batch:
            run_log = logs[append.run_id]
            if append.run_id not in accepted:
                run_log.refused()
            run_log.acknowledge(append.chunk if append.run_id in accepted else None)
            if run_log.wants_flush:
                self.wake(run_log)

    def _measure(self, batch: Sequence[events.Append], seconds: float) -> None:
        self.tally.observe(FLUSH_SECONDS, seconds)
        self.tally.observe(FLUSH_RUNS, len(batch))
        self.tally.observe(FLUSH_EVENTS, sum(a.chunk.last_seq - a.chunk.first_seq + 1 for a in batch))

    def _next_logs(self) -> dict[UUID, RunLog]:
        """Whose turn it is: those that have waited longest, as many as fit. The others stay in line."""
        logs: dict[UUID, RunLog] = {}
        size = 0
        while self._waiting and size < _FLUSH_BYTES:
            run_id = next(iter(self._waiting))
            run_log = self._waiting.pop(run_id)
            if run_log.wants_flush:
                logs[run_id] = run_log
                size += min(run_log.pending_bytes, RUN_BYTES)
        if self._waiting:
            self._something_waits.set()
        return logs

    async def _store(self, batch: Sequence[events.Append]) -> set[UUID]:
        """Send until there is an answer. The same batch again is harmless: its numbers are taken, or they are not."""
        schema = self._database.schema
        unknown = False
        while True:
            try:
                accepted = await self._connection.run(lambda c: events.append(c, schema, batch))
                rejected = [append for append in batch if append.run_id not in accepted]
                if unknown and rejected:  # perhaps stored by the first sending, whose answer was lost
                    accepted |= await self._connection.run(lambda c: events.applied(c, rejected))
                return accepted
            except OutlastError as error:
                if not unknown:
                    log.warning("flush.retrying", runs=len(batch), error=error.message)
                unknown = True
                await asyncio.sleep(random.uniform(0.05, 0.3))
            except Exception:  # of one run's data: the others must not go down with it
                log.exception("flush.rejected", run=response_id(batch[0].run_id), runs=len(batch))
                return await self._store_each(batch) if len(batch) > 1 else set()

    async def _store_each(self, batch: Sequence[events.Append]) -> set[UUID]:
        accepted: set[UUID] = set()
        for append in batch:
            accepted |= await self._store([append])
        return accepted

    async def finish(self, lease: Lease, ending: runs.Ending) -> bool:
        """True when the run has ended this way, now or by an earlier sending whose answer was lost."""
        schema = self._database.schema

        async def work(connection: events.Connection) -> bool:
            if await runs.finish(connection, schema, lease, ending):
                return True
            position = await runs.position(connection, lease.run_id)
            expected = runs.Position(ending.status, lease.attempt, ending.chunk.last_seq, closed=True)
            return position == expected

        return await self._database.run(work, patience_seconds=_FINISH_PATIENCE_SECONDS)
