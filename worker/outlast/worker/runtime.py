"""What executes runs in one process: an attempt for each lease it is given, and one flusher for all of them."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import structlog

from outlast.shared import logs, tracing
from outlast.shared.background import Background
from outlast.shared.connections import Database
from outlast.shared.domain.errors import OutlastError, Unavailable
from outlast.shared.domain.ids import response_id
from outlast.shared.domain.measures import RUN_SECONDS, START_SECONDS, Tally
from outlast.shared.domain.runs import Lease, Run
from outlast.shared.settings import Settings
from outlast.shared.store import runs, schema
from outlast.shared.user_tokens import UserTokens

from . import recording
from .agents.adapter import Adapter
from .attempt import Attempt, Outcome, Stop
from .executing import MEMORY_BYTES, AgentThreads, Marks, execute_as
from .flusher import Flusher
from .lease_clock import LeaseClock

log = structlog.get_logger()

Ended = Callable[[Lease, Outcome], None]
Worn = Callable[[str], None]
"""Told that code of a run goes on here although its attempt is over: "task", or "thread"."""

_BUSY_AGAIN_SECONDS = 30.0
_LOOKS_AT_THE_CLOCK = 20  # in the time in which no lease may be renewed before runs are suspended


@dataclass(slots=True)
class _Held:
    """A lease that this process was given."""

    claimed_at: float
    """When its claim began, at the latest."""
    told_at: float
    """When this process was told of it: renewals that began later include it."""
    attempt: Attempt | None = None
    """None while the run is being read."""
    stopped: Stop | None = None
    """Why, before there is an attempt to be told; a wish is forgotten for an order, and a run that is lost stays so."""

    def stop(self, why: Stop) -> None:
        if self.stopped in (None, Stop.DRAIN) or why is Stop.LOST:
            self.stopped = why
        if self.attempt is not None:
            self.attempt.stop(why)


class Runtime:
    """Runs what it is told to. Claiming, and keeping the leases, is the dispatcher's."""

    def __init__(
        self,
        database: Database,
        agents: Mapping[str, Adapter],
        settings: Settings,
        ended: Ended,
        clock: LeaseClock,
        threads: AgentThreads,
        worn: Worn,
        tally: Tally,
        user_tokens: UserTokens,
    ) -> None:
        self._user_tokens = user_tokens
        self._threads = threads
        self._worn = worn
        self._database = database
        self._agents = agents
        self._settings = settings
        self._ended = ended
        self._clock = clock
        self._tally = tally
        self._flusher = Flusher(database, settings, tally)
        # By lease: a run that was lost may be claimed again here while its lost attempt is still ending.
        self._held: dict[Lease, _Held] = {}
        self._background = Background()

    def start(self, leases: Sequence[Lease], claimed_at: float, told_at: float | None = None) -> None:
        """Begin an attempt for each of these leases. ``ended`` is called once for every one, however it ends.

        ``claimed_at`` is when their claim began, ``told_at`` since when they are renewed, now if unset: in seconds of
        the monotonic clock, which all processes share. This process may read of them late, when it is short of time.
        """
        told_at = time.monotonic() if told_at is None else told_at
        for lease in leases:
            self._held[lease] = _Held(claimed_at, told_at)
        self._background.start(self._start(leases))

    def stop(self, lease: Lease, why: Stop) -> None:
        """End this attempt; one that has ended already is not worth a word."""
        if held := self._held.get(lease):
            held.stop(why)

    def suspend_uncertain(self) -> None:
        """End the attempts whose lease has not been renewed for too long: another worker may soon have their runs.

        The lease itself ends later, so that by then nothing of the run is executed here. If it was not taken over,
        the parent hands the run back when it can, and it goes on.
        """
        now, renewed_at = time.monotonic(), self._clock.renewed_at
        for lease, held in self._held.items():
            certain_from = max(held.claimed_at, renewed_at) if renewed_at > held.told_at else held.claimed_at
            if now - certain_from > self._settings.self_fence and held.stopped is not Stop.LOST:
                log.warning("run.suspended", run=response_id(lease.run_id), attempt=lease.attempt)
                held.stop(Stop.LOST)

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
            attempt = Attempt(run, self._agents, self._database, self._flusher, self._settings)
            held = self._held[attempt.lease]
            held.attempt = attempt
            if run.attempt == 1 and run.waited_seconds is not None:
                self._tally.observe(START_SECONDS, max(run.waited_seconds, 0), run.agent)
            if held.stopped is not None:
                attempt.stop(held.stopped)
            self._background.start(self._attempt(attempt, run, time.monotonic()))
        for lease in set(leases) - {Lease(run.run_id, run.attempt) for run in found}:
            self._end(lease, Outcome())

    async def _attempt(self, attempt: Attempt, run: Run, read_at: float) -> None:
        outcome = Outcome()
        execute_as(attempt.lease)
        try:
            with tracing.attempt(run) as span, recording.attempt(run):
                token = await self._user_tokens.get(run.run_id)
                with logs.concealing(token):
                    outcome = await attempt.run(token)
                if span is not None:
                    span.set({"outlast.outcome": _what_became(outcome)})
        except Unavailable as error:
            reason = f"{error.message.rstrip('.')}; another attempt is made when it is over"
            log.warning("attempt.abandoned", run=response_id(run.run_id), attempt=run.attempt, reason=reason)
        except Exception:  # another attempt is made
            log.exception("attempt.abandoned", run=response_id(run.run_id), attempt=run.attempt)
        finally:
            if outcome.status is not None:  # by one clock before it was read here, by another since
                self._user_tokens.forget(run.run_id)
                seconds = (run.begun_seconds or 0) + time.monotonic() - read_at
                self._tally.observe(RUN_SECONDS, seconds, run.agent, outcome.status.value)
            self._end(attempt.lease, outcome)

    def _end(self, lease: Lease, outcome: Outcome) -> None:
        del self._held[lease]
        if outcome.deserted:
            self._worn("task")
        if self._threads.busy(lease):
            self._background.start(self._await_threads(lease))
        else:
            self._threads.forget(lease)
        self._ended(lease, outcome)

    async def _await_threads(self, lease: Lease) -> None:
        """What an ended attempt has left in threads gets the grace to end too."""
        await asyncio.sleep(self._settings.grace_seconds)
        if busy := self._threads.busy(lease):
            log.warning("thread.leaked", run=response_id(lease.run_id), attempt=lease.attempt, threads=busy)
            self._worn("thread")
        self._threads.forget(lease)

    def counted(self) -> dict[str, Any]:
        """What has been counted since this was last asked, for `Dispatcher.tally`; empty if nothing was."""
        self._tally.counters.update(self._database.take_pool_waits())
        return self._tally.take()

    async def _watch_forever(self) -> None:
        while True:
            self.suspend_uncertain()
            await asyncio.sleep(self._settings.self_fence / _LOOKS_AT_THE_CLOCK)

    @asynccontextmanager
    async def running(self) -> AsyncGenerator[Runtime]:
        loops = Background()
        loops.start(self._flusher.run_forever())
        loops.start(self._watch_forever())
        try:
            yield self
        finally:
            await self._background.cancel()
            await loops.cancel()


def _what_became(outcome: Outcome) -> str:
    """In a word, for traces."""
    return outcome.status.value if outcome.status else "retried" if outcome.retried else "handed_on"


def _teller() -> Callable[[int], None]:
    """Says that all connections of this process are busy, but not each time that work finds them so."""
    told_at = -math.inf

    def tell(connections: int) -> None:
        nonlocal told_at
        now = time.monotonic()
        if now - told_at >= _BUSY_AGAIN_SECONDS:
            told_at = now
            log.warning("pool.busy", connections=connections)

    return tell


@asynccontextmanager
async def open_runtime(
    settings: Settings,
    agents: Mapping[str, Adapter],
    ended: Ended,
    clock: LeaseClock,
    *,
    marks: Marks | None = None,
    worn: Worn = lambda _: None,
    tally: Tally | None = None,
) -> AsyncGenerator[Runtime]:
    """A runtime on the database that the settings name. What still runs at the end is given up as it is."""
    # The loop's own pool has a handful of threads: graphs that are not async would wait for one another.
    threads = AgentThreads(settings.concurrency, marks or Marks(bytearray(MEMORY_BYTES)))
    asyncio.get_running_loop().set_default_executor(threads)
    database = Database.of(settings, application="outlast worker", pin_plan=True, when_busy=_teller())
    async with database.pooled(max_connections=settings.worker_connections):
        await database.run(schema.check, patience_seconds=30)
        async with (
            UserTokens(settings).open() as user_tokens,
            Runtime(
                database, agents, settings, ended, clock, threads, worn, tally or Tally(), user_tokens
            ).running() as runtime,
        ):
            yield runtime
