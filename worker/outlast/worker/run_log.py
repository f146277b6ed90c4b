"""The end of one run's log, as its attempt writes it: what is not stored yet, and what waits for that."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from outlast.agent import Secret
from outlast.shared.domain.errors import LeaseLost
from outlast.shared.domain.events import Chunk, Event
from outlast.shared.domain.runs import Lease, Run, RunStatus
from outlast.shared.store import runs
from outlast.shared.wire import event_line, to_json

from .concealment import masked

if TYPE_CHECKING:
    from .flusher import Flusher

RUN_BYTES = 256 * 1024  # of one run in one flush, so that a loud run leaves room for the others
_EVENTS_PER_TURN = 32  # an agent that never waits for anything lets others run after so many events


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
        """What the agent may use and the log must not show."""
        self._concealed = secret

    async def append(self, new: Sequence[Event]) -> None:
        """Add events; waits while too many are not stored yet. Raises LeaseLost when they never will be."""
        self.add(new)
        if self.must_pause:
            await self.pause()

    def add(self, new: Sequence[Event]) -> None:
        """Add events without waiting; then `pause` where that can be done. Raises LeaseLost."""
        self._check()
        self._add(new)
        self._flusher.wake(self)

    @property
    def must_pause(self) -> bool:
        """Whether the agent is ahead of the database, or has not let other runs go on for long."""
        return self._full or self._since_turn >= _EVENTS_PER_TURN

    async def pause(self) -> None:
        """Wait while too many events are not stored yet, and let other runs go on. Raises LeaseLost."""
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
        if self.pending_bytes > RUN_BYTES:
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
        """Store nothing more: code of the agent's that still waits for it learns that it has lost the run."""
        self._flusher.close(self)
        self._is_lost = True
        self._tell_changed()

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
            if count and size + len(line) > RUN_BYTES:
                break
            size, count = size + len(line), count + 1
        return Chunk(self.next_seq, self.next_seq + count - 1, "\n".join(self.pending[:count]))

    def acknowledge(self, chunk: Chunk | None) -> None:
        """These events are stored (None: none are); code that waits for that goes on."""
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
        """Wake all code that waits; each looks at its own condition."""
        self._changed.set()
        self._changed = asyncio.Event()

    def _check(self) -> None:
        if self._is_lost:
            raise LeaseLost
