"""Back-pressure: beyond a number of waiting runs a submission is refused before anything is stored.

Counting a long queue takes time, so it is counted now and then, and what was accepted since is added. That sum is never
too low for what this replica accepts: alone it never exceeds a limit; several replicas may, by as many as the others
accept between two counts of one.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Generator
from contextlib import contextmanager

import structlog

from outlast.shared.background import Background
from outlast.shared.connections import Database
from outlast.shared.domain.errors import OutlastError, QueueFull, Unavailable
from outlast.shared.domain.runs import Submission
from outlast.shared.settings import Settings
from outlast.shared.store import submissions

log = structlog.get_logger()

_COUNT_SECONDS = 0.25  # between two counts, at least
_COUNT_SHARE = 0.05  # of the time, at most
_MOST_PRINCIPALS = 1000
_RETRY_SECONDS = 1, 60


class Admission:
    """Says which submissions are accepted."""

    def __init__(self, database: Database, settings: Settings) -> None:
        self._database = database
        self._per_principal = settings.max_queued_per_principal
        self._all = _Bound(database, settings.max_queued)
        self._principals: dict[tuple[str, str], _Bound] = {}

    async def check(self, submission: Submission) -> list[_Bound]:
        """The limits that the submission has to pass `through`. Raises QueueFull when it exceeds one."""
        bounds = self._bounds(submission)
        for bound in bounds:
            await bound.count_when_due()
        for bound in bounds:
            if bound.full:
                raise bound.refusal()
        return bounds

    def _bounds(self, submission: Submission) -> list[_Bound]:
        if self._per_principal is None:
            return [self._all]
        key = submission.queue, submission.principal
        if key not in self._principals:
            if len(self._principals) >= _MOST_PRINCIPALS:
                self._principals = {k: bound for k, bound in self._principals.items() if bound.in_use}
            self._principals[key] = _Bound(self._database, self._per_principal, *key)
        return [self._all, self._principals[key]]


@contextmanager
def through(bounds: list[_Bound]) -> Generator[None]:
    """Count a submission while it is stored. One that certainly was not stored does not count any more."""
    for bound in bounds:
        bound.enter()
    counts = True
    try:
        yield
    except Unavailable:  # it may have been stored
        raise
    except OutlastError:
        counts = False
        raise
    finally:
        for bound in bounds:
            bound.leave(counts=counts)


class _Bound:
    """How many runs wait at most, of everybody or of one principal in one queue."""

    def __init__(self, database: Database, limit: int, queue: str | None = None, principal: str | None = None) -> None:
        self._database = database
        self._limit = limit
        self._queue = queue
        self._principal = principal
        self._counted = 0
        self._since = 0  # accepted since the count began, and those on their way then: it may have missed them
        self._since_next: int | None = None  # the same for the count that is under way
        self._doubtful = 0  # of those, the ones that the count may have seen: they may be counted twice
        self._on_their_way = 0
        self._refused = 0  # since the last count
        self._drained_per_second = 0.0
        self._now = asyncio.get_running_loop().time
        self._began = -math.inf
        self._due = -math.inf
        self._failure: OutlastError | None = None
        self._background = Background()
        self._counting: asyncio.Task[None] | None = None

    @property
    def full(self) -> bool:
        return self._counted + self._since >= self._limit

    @property
    def in_use(self) -> bool:
        return self._on_their_way > 0 or self._counting is not None or self._now() < self._due

    def enter(self) -> None:
        self._on_their_way += 1
        self._add(1)

    def leave(self, *, counts: bool) -> None:
        self._on_their_way -= 1
        if not counts:
            self._add(-1)

    def _add(self, number: int) -> None:
        self._since += number
        if self._since_next is not None:
            self._since_next += number

    async def count_when_due(self) -> None:
        """Begin to count again when it is time. Waits for it when the answer depends on it."""
        due = self._now() >= self._due or (self.full and self._doubtful > 0)
        if self._counting is None and due:
            self._counting = self._background.start(self._count())
        if self._counting is not None and (self.full or self._began == -math.inf):
            await asyncio.shield(self._counting)
            if self._began == -math.inf and self._failure is not None:
                raise self._failure

    async def _count(self) -> None:
        began, earlier = self._now(), self._counted + self._since - self._on_their_way
        self._since_next = self._on_their_way
        try:
            counted = await self._database.run(
                lambda c: submissions.count_queued(c, self._limit + 1, self._queue, self._principal)
            )
        except OutlastError as error:  # what was counted last still holds
            self._failure = error
            log.warning("queue.not_counted", error=error.message)
        else:
            if self._began != -math.inf:
                drained = max(earlier - counted, 0) / (began - self._began)
                self._drained_per_second = (self._drained_per_second + drained) / 2 or drained
            self._counted, self._since, self._began, self._refused = counted, self._since_next, began, 0
            self._doubtful = self._since_next
        finally:
            self._since_next = self._counting = None
            self._due = self._now() + max(_COUNT_SECONDS, (self._now() - began) / _COUNT_SHARE)

    def refusal(self) -> QueueFull:
        """Each of those that are refused is told a later time, as far as is known how fast the queue drains."""
        self._refused += 1
        ahead = self._counted + self._since - self._limit + self._refused
        least, most = _RETRY_SECONDS
        wait = math.ceil(ahead / self._drained_per_second) if self._drained_per_second > 0 else least
        whose = "Too many runs are waiting" if self._principal is None else "Too many of your runs are waiting"
        return QueueFull(
            f"{whose}: at most {self._limit}. Try again later.",
            code="queue_full" if self._principal is None else "principal_queue_full",
            retry_after_seconds=min(max(wait, least), most),
        )
