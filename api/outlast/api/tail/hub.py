"""A hub holds the latest frames of one run for everyone who watches it in this process. No I/O."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from uuid import UUID

from outlast.shared.domain.events import TERMINAL_TYPES, Chunk
from outlast.shared.wire import type_of

RING_FRAMES = 512
RING_BYTES = 2**20


class StreamCut(Exception):
    """The stream cannot go on: the connection is to be aborted, never ended as if it were complete."""


@dataclass(frozen=True, slots=True)
class Batch:
    """Frames that follow each other, the first numbered ``first_seq``. None, and not ended: it has been quiet."""

    first_seq: int
    frames: list[bytes]
    ended: bool


def frame(line: str) -> bytes:
    """An event as server-sent event."""
    return f"event: {type_of(line)}\ndata: {line}\n\n".encode()


class Hub:
    """``frames`` are numbered from ``base`` to ``next - 1``; older ones are in the database only."""

    __slots__ = (
        "base", "closed", "followed_since", "frames", "idle_since", "next", "reopened", "run_id", "size", "viewers",
    )  # fmt: skip

    def __init__(self, run_id: UUID, start: int, reopened: int = 0) -> None:
        self.run_id = run_id
        self.reopened = reopened
        """How often the end of this log had been withdrawn when this hub began."""
        self.base = self.next = start
        self.frames: deque[bytes] = deque()
        self.size = 0
        self.closed = False
        """The terminal event has been read: there is nothing after ``next``."""
        self.viewers: set[Viewer] = set()
        self.idle_since = 0.0
        self.followed_since: float | None = None
        """Since when it is read as soon as there is more; None while nobody watches, and before the first read."""

    def extend(self, chunks: Iterable[Chunk]) -> None:
        """Add what continues the ring; what it has already is skipped, so a page may be given twice."""
        for chunk in chunks:
            assert chunk.first_seq <= self.next, "a reader was given a page with a hole before it"
            for line in chunk.lines_from(self.next):
                self._push(line)

    def _push(self, line: str) -> None:
        data = frame(line)
        self.frames.append(data)
        self.size += len(data)
        self.next += 1
        self.closed = type_of(line) in TERMINAL_TYPES
        while len(self.frames) > RING_FRAMES or (self.size > RING_BYTES and len(self.frames) > 1):
            self._drop_first()

    def _drop_first(self) -> None:
        self.size -= len(self.frames.popleft())
        self.base += 1

    def forget_seen(self) -> None:
        """Drop what every viewer has been sent. Latecomers read it from the database."""
        lowest = min((viewer.cursor for viewer in self.viewers), default=self.next)
        while self.frames and self.base < lowest:
            self._drop_first()

    def since(self, cursor: int) -> list[bytes]:
        skipped = cursor - self.base
        return list(self.frames)[skipped:] if skipped else list(self.frames)

    def wake(self) -> None:
        for viewer in self.viewers:
            viewer.wake()

    def cut(self) -> None:
        for viewer in self.viewers:
            viewer.cut()


class Viewer:
    """One client's place in one run: ``cursor`` is the next number it needs."""

    __slots__ = ("_cut", "_waiter", "cursor", "hub", "quiet_since", "sending_since", "task")

    def __init__(self, hub: Hub, cursor: int, now: float) -> None:
        self.hub = hub
        self.cursor = cursor
        self.quiet_since = now
        self.sending_since: float | None = None
        """Since when the client has not taken what it was sent."""
        task = asyncio.current_task()
        assert task is not None, "a viewer belongs to the task that sends"
        self.task = task
        self._waiter: asyncio.Future[None] | None = None
        self._cut = False

    @property
    def behind_ring(self) -> bool:
        return self.cursor < self.hub.base

    @property
    def is_cut(self) -> bool:
        return self._cut

    def take(self) -> Batch | None:
        """What the ring has for this viewer, or None when it must wait."""
        if self._cut:
            raise StreamCut
        hub = self.hub
        if self.cursor < hub.next:
            batch = Batch(self.cursor, hub.since(self.cursor), hub.closed)
            self.cursor = hub.next
            return batch
        return Batch(self.cursor, [], ended=True) if hub.closed else None

    async def wait(self) -> None:
        """Until there may be something to take, or it is time for a sign of life."""
        self._waiter = asyncio.get_running_loop().create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

    def wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def cut(self) -> None:
        self._cut = True
        self.wake()
