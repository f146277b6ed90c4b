"""Concurrent submissions share a commit: what waits goes into the next statement as soon as the last has returned."""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import AsyncGenerator, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from uuid import UUID

import structlog

from outlast.shared.background import Background
from outlast.shared.connections import Database
from outlast.shared.domain.errors import Stopping, Unavailable
from outlast.shared.domain.runs import MultitaskStrategy
from outlast.shared.store import submissions
from outlast.shared.store.submissions import BATCH_SESSION, Entry

from .metrics.instruments import Metrics

log = structlog.get_logger()

_BATCH_ENTRIES = 256
_BATCH_CHARACTERS = 2**22  # larger ones could take longer than a statement may
_PATIENCE_SECONDS = 5.0
_PAUSE_SECONDS = 0.05, 0.5  # after the first failure in a row, and at most
_ALONE_AT_ONCE = 4  # of the pool's connections: the others are for those who read


@dataclass(frozen=True, slots=True)
class _Waiting:
    """An entry, what its request awaits (the id of the run that has it), and until when it is tried."""

    entry: Entry
    stored_as: asyncio.Future[UUID]
    deadline: float

    @property
    def characters(self) -> int:
        return len(self.entry.request) + len(self.entry.log.data)


class GroupCommit:
    """Stores runs. One batch at a time is under way, on a connection of its own."""

    def __init__(self, database: Database, metrics: Metrics) -> None:
        self._database = database
        self._connection = database.dedicated(**BATCH_SESSION)
        self._metrics = metrics
        self._waiting: deque[_Waiting] = deque()
        self._arrived = asyncio.Event()
        self._failures = 0
        self._alone = Background()
        self._may_go_alone = asyncio.Semaphore(_ALONE_AT_ONCE)
        self._loop = asyncio.get_running_loop()

    @property
    def failing(self) -> bool:
        """Whether the last batch did not reach the database."""
        return self._failures > 0

    @asynccontextmanager
    async def running(self) -> AsyncGenerator[GroupCommit]:
        looping = Background()
        looping.start(self._commit_forever())
        try:
            yield self
        finally:
            await looping.cancel()
            await self._alone.cancel()
            _fail(self._waiting, Stopping())
            await self._connection.close()

    async def store(self, entry: Entry) -> UUID:
        """Commit a run. Returns its id, or that of an earlier run with its idempotency key.

        Raises Unavailable when the database does not answer in time, and Refused when it does not take the run.
        """
        waiting = _Waiting(entry, self._loop.create_future(), self._loop.time() + _PATIENCE_SECONDS)
        self._waiting.append(waiting)
        self._arrived.set()
        return await waiting.stored_as

    async def _commit_forever(self) -> None:
        while True:
            await self._arrived.wait()
            await self.commit_once()

    async def commit_once(self) -> None:
        """Store what waits, as far as it fits into one batch; what it does not store goes alone."""
        batch, rest = _shared(self._take())
        if batch:
            began = self._loop.time()
            try:
                stored = await self._connection.run(lambda c: submissions.submit_batch(c, [w.entry for w in batch]))
            except Unavailable as error:
                await self._try_again_later([*batch, *rest], error)
                return
            except asyncio.CancelledError:
                _fail([*batch, *rest], Stopping())
                raise
            except Exception as error:  # noqa: BLE001 — each is told by its own statement what is wrong with it
                cause = type(error.__cause__ or error).__name__
                log.warning("submissions.batch_refused", cause=cause, entries=len(batch))
                stored = set[UUID]()
            else:
                self._metrics.submission_batch_runs.observe(len(stored))
                self._metrics.submission_commit_seconds.observe(self._loop.time() - began)
            self._failures = 0
            rest = [*_answered(batch, stored), *rest]
        self._send_alone(rest)

    def _take(self) -> list[_Waiting]:
        taken: list[_Waiting] = []
        characters = 0
        while self._waiting and len(taken) < _BATCH_ENTRIES:
            characters += self._waiting[0].characters
            if taken and characters > _BATCH_CHARACTERS:
                break
            taken.append(self._waiting.popleft())
        if not self._waiting:
            self._arrived.clear()
        return taken

    async def _try_again_later(self, batch: Sequence[_Waiting], error: Unavailable) -> None:
        """The same entries with the same ids: whether they were stored is not known, and does not matter."""
        now = self._loop.time()
        _fail((waiting for waiting in batch if waiting.deadline <= now), error)
        self._waiting.extendleft(waiting for waiting in reversed(batch) if waiting.deadline > now)
        if self._waiting:
            self._arrived.set()
        first, most = _PAUSE_SECONDS
        pause = min(first * 2**self._failures, most)
        self._failures = min(self._failures + 1, 10)
        await asyncio.sleep(pause * random.uniform(0.5, 1.0))

    def _send_alone(self, rest: Iterable[_Waiting]) -> None:
        by_thread: dict[tuple[str, str], list[_Waiting]] = {}
        for waiting in rest:
            submission = waiting.entry.submission
            by_thread.setdefault((submission.principal, submission.thread), []).append(waiting)
        for entries in by_thread.values():
            self._alone.start(self._store_in_order(entries))

    async def _store_in_order(self, entries: Sequence[_Waiting]) -> None:
        try:
            for waiting in entries:
                async with self._may_go_alone:
                    await self._store_alone(waiting)
        except asyncio.CancelledError:
            _fail(entries, Stopping())
            raise

    async def _store_alone(self, waiting: _Waiting) -> None:
        try:
            run_id = await self._database.run(lambda c: submissions.submit(c, waiting.entry))
        except Exception as error:  # noqa: BLE001 — whatever it is, the request that waits answers with it
            _fail([waiting], error)
        else:
            _answer(waiting, run_id)


def _shared(taken: Sequence[_Waiting]) -> tuple[list[_Waiting], list[_Waiting]]:
    """Those that may share a statement, and the others: the second of a thread or key, and what is very large."""
    batch: list[_Waiting] = []
    rest: list[_Waiting] = []
    seen: set[tuple[str, str, str]] = set()
    for waiting in taken:
        s = waiting.entry.submission
        marks = {("thread", s.principal, s.thread)}
        if s.idempotency_key is not None:
            marks.add(("key", s.principal, s.idempotency_key))
        plain = s.multitask_strategy is MultitaskStrategy.ENQUEUE  # the others ask what their thread does
        fits = plain and waiting.characters <= _BATCH_CHARACTERS and not marks & seen
        seen |= marks
        (batch if fits else rest).append(waiting)
    return batch, rest


def _answered(batch: Iterable[_Waiting], stored: set[UUID]) -> list[_Waiting]:
    """Tell those that are stored. Returns the others."""
    rest: list[_Waiting] = []
    for waiting in batch:
        run_id = waiting.entry.submission.run_id
        if run_id in stored:
            _answer(waiting, run_id)
        else:
            rest.append(waiting)
    return rest


def _answer(waiting: _Waiting, run_id: UUID) -> None:
    if not waiting.stored_as.done():  # its request may have been given up
        waiting.stored_as.set_result(run_id)


def _fail(entries: Iterable[_Waiting], error: Exception) -> None:
    for waiting in entries:
        if not waiting.stored_as.done():
            waiting.stored_as.set_exception(error)
