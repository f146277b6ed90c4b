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

from outlast.agent import Secret
from outlast.shared.connections import Database
from outlast.shared.domain.errors import LeaseLost, OutlastError
from outlast.shared.domain.events import Chunk, Event
from outlast.shared.domain.ids import response_id
from outlast.shared.domain.measures import FLUSH_EVENTS, FLUSH_RUNS, FLUSH_SECONDS, Tally
from outlast.shared.domain.runs import Lease, Run, RunStatus
from outlast.shared.settings import Settings
from outlast.shared.store import events, runs
from outlast.shared.wire import event_line, to_json

from .concealment import masked

log = structlog.get_logger()

_FLUSH_BYTES = 2**20  # characters in one flush: more would keep everybody waiting for one statement
_RUN_BYTES = 256 * 1024  # of one run in one flush, so that a loud run leaves room for the others
_EVENTS_PER_TURN = 32  # an agent that never waits for anything lets others run after so many events
_FINISH_PATIENCE_SECONDS = 3600.0  # a result is worth waiting for: until the lease is taken, nobody else has it


class RunLog:
    """The end of one run's log, as its attempt writes it."""

    def __init__(self, flusher: Flusher, run: Run, lost: Callable[[], None]) -> None:
        self.lease = Lease(run.run_id, run.attempt)
        self.pending: list[str] = []
        self.pending_bytes = 0
        self.next_seq = run.last_seq + 1
        """The number of the first pending event."""
        self._flusher = flusher
        self._on_lost = lost
        self._is_lost = False
        self._finishing = False
        self._changed = asyncio.Event()
        self._since_turn = 0
        self._concealed: Secret | None = None

    def conceal(self, secret: Secret | None) -> None:
        """What the agent may use and nobody may find in the log."""
        self._concealed = secret

    async def append(self, new: Sequence[Event]) -> None:
        """Add events; waits while too many are not stored yet. Raises LeaseLost when they never will be."""
        self._check()
        self._add(new)
        self._flusher.wake(self)
        if self._full:
            await self._until(lambda: not self._full)
        elif self._since_turn >= _EVENTS_PER_TURN:
            self._since_turn = 0
            await asyncio.sleep(0)

    async def flush(self) -> None:
        """Until everything that was appended is stored. Raises LeaseLost when it never will be."""
        self._check()
        await self._until(lambda: not self.pending)

    async def finish(
        self, last: Sequence[Event], status: RunStatus, response: object, checkpoint_id: str | None
    ) -> None:
        """Store the last events and the run's end in one statement. Raises LeaseLost when the run is not ours."""
        self._check()
        if self.pending_bytes > _RUN_BYTES:
            await self.flush()  # the end is one statement: what need not be in it goes before
        self._finishing = True
        self._flusher.leave(self)
        await self._until(lambda: not self._flusher.in_flight(self))
        self._add(last)
        chunk = Chunk(self.next_seq, self.next_seq + len(self.pending) - 1, "\n".join(self.pending))
        ending = runs.Ending(status, masked(to_json(response), self._concealed), chunk, checkpoint_id)
        if not await self._flusher.finish(self.lease, ending):
            self.refused()
            raise LeaseLost
        self.pending.clear()
        self.next_seq = chunk.last_seq + 1

    def close(self) -> None:
        self._flusher.close(self)

    async def abandon(self) -> None:
        """Drop what is not stored; nothing more is, when this returns."""
        self._finishing = True
        self._flusher.leave(self)
        self.pending.clear()
        await self._until(lambda: not self._flusher.in_flight(self))

    def refused(self) -> None:
        """The database has refused a write: the run is another's."""
        self._flusher.tally.counters["fenced_writes"] += 1
        self.lose()

    def lose(self) -> None:
        """The run is another's: drop what is pending and stop the attempt."""
        if not self._is_lost:
            self._is_lost = True
            self.pending.clear()
            self._flusher.leave(self)
            self._tell_changed()
            self._on_lost()

    @property
    def wants_flush(self) -> bool:
        return bool(self.pending) and not self._finishing and not self._is_lost

    def take(self) -> Chunk:
        """The next events to flush, as many as fit."""
        size, count = 0, 0
        for line in self.pending:
            if count and size + len(line) > _RUN_BYTES:
                break
            size, count = size + len(line), count + 1
        return Chunk(self.next_seq, self.next_seq + count - 1, "\n".join(self.pending[:count]))

    def acknowledge(self, chunk: Chunk | None) -> None:
        """These events are stored (None: none are); whoever waits for that goes on."""
        if chunk is not None and not self._is_lost:
            count = chunk.last_seq - chunk.first_seq + 1
            self.pending_bytes -= sum(map(len, self.pending[:count]))
            del self.pending[:count]
            self.next_seq = chunk.last_seq + 1
        self._tell_changed()

    def _add(self, new: Sequence[Event]) -> None:
        for event in new:
            line = masked(event_line(event), self._concealed)
            self.pending.append(line)
            self.pending_bytes += len(line)
        self._since_turn += len(new)

    @property
    def _full(self) -> bool:
        return len(self.pending) > self._flusher.buffer_events or self.pending_bytes > self._flusher.buffer_bytes

    async def _until(self, condition: Callable[[], bool]) -> None:
        while not (self._is_lost or condition()):
            await self._changed.wait()
        self._check()

    def _tell_changed(self) -> None:
        """Wake whoever waits; each looks at its own condition."""
        self._changed.set()
        self._changed = asyncio.Event()

    def _check(self) -> None:
        if self._is_lost:
            raise LeaseLost


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
                size += min(run_log.pending_bytes, _RUN_BYTES)
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
