"""One attempt at one run, from claim to end: rebuild what earlier attempts wrote, drive the agent, store, finish."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from enum import Enum
from functools import partial
from typing import Any

import structlog

from outlast.agent import AgentError, Secret
from outlast.shared.connections import Database
from outlast.shared.domain.errors import LeaseLost, Unavailable
from outlast.shared.domain.events import Event
from outlast.shared.domain.ids import item_id, response_id
from outlast.shared.domain.overdue import EndReason
from outlast.shared.domain.retry import Backoff
from outlast.shared.domain.runs import Lease, Run, RunStatus
from outlast.shared.endings import ending_of, past_of
from outlast.shared.output import Output
from outlast.shared.output.replay import Past
from outlast.shared.settings import Settings
from outlast.shared.store import events, leases, retries, runs

from . import form, recording
from .agents.adapter import Adapter
from .background import stack_of
from .failures import consequence, failed_for, given_up
from .flusher import Flusher
from .stage import Drained, Stage

log = structlog.get_logger()

_RELEASE_PATIENCE_SECONDS = 5.0
_FOREVER_SECONDS = 1e8


class Stop(Enum):
    """Why an attempt is ended from outside."""

    CANCEL = "cancel"
    """Somebody wants the run to end."""
    DEADLINE = "deadline"
    """Its time is up."""
    DRAIN = "drain"
    """This worker stops soon: an agent that can stop where it will go on does so."""
    RELEASE = "release"
    """This worker stops now: the run goes on elsewhere."""
    LOST = "lost"
    """The run is not ours any more, or may soon not be."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of an attempt, to be counted."""

    status: RunStatus | None = None
    """None: it did not end the run."""
    events: int = 0
    """Events it wrote."""
    retried: bool = False
    """The run waits for its next attempt, because of a transient error."""
    timed_out: bool = False
    """The run has failed because its time was up."""
    deserted: bool = False
    """The agent's code goes on although the attempt is over: it does not let itself be cancelled."""

    @classmethod
    def from_wire(cls, fields: dict[str, Any]) -> Outcome:
        """From its fields as JSON has them."""
        status: str | None = fields.pop("status")
        return cls(RunStatus(status) if status else None, **fields)


class Attempt:
    def __init__(
        self, run: Run, agents: Mapping[str, Adapter], database: Database, flusher: Flusher, settings: Settings
    ) -> None:
        self.lease = Lease(run.run_id, run.attempt)
        self._settings = settings
        self._run = run
        self._new_id = partial(item_id, run.run_id)
        self._agent = agents.get(run.agent)
        self._database = database
        self._log = flusher.open(run, lost=lambda: self.stop(Stop.LOST))
        self._stop: Stop | None = None
        self._stage: Stage | None = None
        self._draining = False
        self._finished_as: RunStatus | None = None
        self._retried = False
        self._deserted = False
        self._driving: asyncio.Task[None] | None = None
        self._stopping = asyncio.Event()
        # Not by this machine's time of day, which may be wrong: a run would end too early.
        self._ends_at = time.monotonic() + (_FOREVER_SECONDS if run.seconds_left is None else run.seconds_left)

    @property
    def _seconds_left(self) -> float:
        return max(self._ends_at - time.monotonic(), 0)

    def stop(self, why: Stop) -> None:
        """End the agent's code; what has happened to the run is then decided by ``why``. The first reason counts.

        To drain is a wish: an agent that cannot meet it goes on.
        """
        if why is Stop.DRAIN:
            self._draining = True
            if self._stage is not None:
                self._stage.drain()
            return
        if why is Stop.LOST:
            self._log.lose()  # whoever waits for it goes on; the first time it calls back
        if self._stop is None or (why is Stop.LOST and self._stop is not why):
            self._stop = why
            self._stopping.set()
            if self._driving is not None:
                self._driving.cancel()

    async def run(self, user_token: Secret | None = None) -> Outcome:
        """Every outcome of the agent's code ends the run or hands it back. Raises Unavailable only."""
        with structlog.contextvars.bound_contextvars(run=response_id(self._run.run_id), attempt=self._run.attempt):
            log.info("run.claimed", agent=self._run.agent)
            try:
                past = await self._past()
                output = Output(self._run, self._new_id, time.time, past)
                refusal = self._refusal()
                if refusal not in (Stop.LOST, Stop.RELEASE):  # else it is another attempt that begins
                    await self._log.append(output.begin(None if refusal else await self._surviving(past)))
                self._log.conceal(user_token)
                self._stage = Stage(self._run, output, self._log, self._database, past, self._settings, user_token)
                await self._drive_and_finish(self._stage)
            except LeaseLost:
                log.warning("lease.lost")
            except Unavailable:
                raise
            except Exception:  # ours, not the agent's: the run must not be stuck, nor be tried for ever
                log.exception("attempt.broke")
                await self._fail_broken()
            finally:
                self._log.close()
        return Outcome(
            self._finished_as,
            self._log.next_seq - self._run.last_seq - 1,
            retried=self._retried,
            timed_out=self._stop is Stop.DEADLINE and self._finished_as is RunStatus.FAILED,
            deserted=self._deserted,
        )

    async def _fail_broken(self) -> None:
        """End a run that this code cannot go on with, from what its log holds."""
        await self._log.abandon()
        past = await past_of(self._database, self._run.run_id)
        output = Output(replace(self._run, last_seq=past.last_seq), self._new_id, time.time, past)
        last, response = output.fail("internal_error", "The run could not be continued.")
        ending = ending_of(RunStatus.FAILED, last, response)
        if await self._database.run(lambda c: runs.finish(c, self._database.schema, self.lease, ending)):
            self._finished_as = RunStatus.FAILED

    async def _past(self) -> Past:
        """What is stored of earlier attempts; a first attempt has nothing to look for."""
        return Past() if self._run.attempt == 1 else await past_of(self._database, self._run.run_id)

    async def _surviving(self, past: Past) -> Collection[str]:
        """What of all that is still part of the answer this attempt goes on from."""
        if self._agent is None or self._run.attempt == 1:
            return ()
        return await self._agent.surviving(self._run, past.said, self._database)

    async def _drive_and_finish(self, stage: Stage) -> None:
        output = stage.output
        followed = await self._drive(stage)
        match failed_for(EndReason.TASK_TIMEOUT) if followed is Stop.DEADLINE else followed:
            case Stop.LOST:
                raise LeaseLost
            case Stop.RELEASE | Stop.DRAIN:
                await self._release("worker_drained")
            case Stop.CANCEL:
                await self._log.append(output.settle("incomplete"))
                await self._finish(RunStatus.CANCELLED, *output.cancel(), stage.checkpoint_id)
            case Backoff() as backoff:
                await self._retry(backoff)
            case AgentError() as failure:
                await self._log.append(output.settle("incomplete"))
                ending = output.fail(failure.code, failure.message)
                await self._finish(RunStatus.FAILED, *ending, stage.checkpoint_id)
            case None:
                await self._log.append(output.settle("completed"))
                await self._finish(RunStatus.COMPLETED, *output.complete(datetime.now(UTC)), stage.checkpoint_id)

    async def _drive(self, stage: Stage) -> Stop | Backoff | AgentError | None:
        """Run the agent's code to its end. Returns what stopped it before, or what follows from its failure."""
        refusal = self._refusal()
        if self._agent is None or refusal is not None:
            return refusal
        self._driving = asyncio.create_task(form.execute(self._agent, stage))
        await self._until_over(self._driving)
        stage.close()
        error = asyncio.CancelledError() if self._deserted or self._driving.cancelled() else self._driving.exception()
        match error:
            case LeaseLost():
                return Stop.LOST
            case Unavailable():  # of the agent's checkpoints: no fault of its own, another attempt goes on from them
                raise error
            case _ if self._stop in (Stop.CANCEL, Stop.DEADLINE):  # whatever the code has made of it
                return self._stop
            case None:
                return None
            case asyncio.CancelledError():
                return self._stop or AgentError("The agent's code was cancelled from within.")
            case Drained():
                return Stop.DRAIN
            case AgentError():
                return error
            case Exception():
                return self._after(error)
            case _:
                raise error

    async def _until_over(self, driving: asyncio.Task[None]) -> None:
        """Until the agent's code has ended. When it is stopped, or its time is up, it has the grace to do so."""
        stopping = asyncio.create_task(self._stopping.wait())
        try:
            await asyncio.wait({driving, stopping}, timeout=self._seconds_left, return_when=asyncio.FIRST_COMPLETED)
            if driving.done():
                return
            self.stop(Stop.DEADLINE)
            await asyncio.wait({driving}, timeout=self._settings.grace_seconds)
        except asyncio.CancelledError:
            driving.cancel()
            raise
        finally:
            stopping.cancel()
        if not driving.done():
            self._deserted = True
            log.warning("run.deserted", why=self._stop and self._stop.value, stack=stack_of(driving))

    def _refusal(self) -> Stop | AgentError | None:
        """Why the agent is not even started; nothing of what was said before is taken back then."""
        if self._agent is None:
            return AgentError(f"This worker has no agent named {self._run.agent!r}.", code="agent_not_found")
        if self._run.cancel_requested:
            self.stop(Stop.CANCEL)
        if self._stop is not None:
            return self._stop
        if self._run.attempt == 1 and self._run.expired:
            return failed_for(EndReason.EXPIRED)
        if self._seconds_left <= 0:  # code that kills its worker would do so again
            self._stop = Stop.DEADLINE
            return self._stop
        if spent := given_up(self._run, self._settings):
            return spent
        return Stop.RELEASE if self._draining else None

    def _after(self, error: Exception) -> Stop | Backoff | AgentError:
        """What follows from an exception of the agent's code: another try, or the end with words for the client."""
        policy = self._settings.retry_policy(self._run.agent)
        follows = consequence(
            error, self._run, policy, now=datetime.now(UTC), seconds_left=self._seconds_left, jitter=random.random()
        )
        # Another try is not what follows when it has been stopped: that may be why it failed.
        return self._stop if self._stop is not None and isinstance(follows, Backoff) else follows

    async def _finish(
        self, status: RunStatus, last: list[Event], response: dict[str, Any], checkpoint_id: str | None
    ) -> None:
        await self._log.finish(last, status, response, checkpoint_id)
        self._finished_as = status
        recording.finished(status, response)
        log.info("run.finished", status=status.value, events=last[-1].sequence_number + 1)
        try:
            await self._database.run(lambda c: events.compact(c, self._run.run_id), patience_seconds=1)
        except Unavailable:  # it saves space only
            log.warning("run.not_compacted")

    async def _release(self, cause: str) -> None:
        """Hand the run back to the head of the queue; if that fails its lease ends by itself."""
        await self._log.flush()
        await self._database.run(
            lambda c: leases.release(c, [self.lease], cause=cause), patience_seconds=_RELEASE_PATIENCE_SECONDS
        )
        log.info("run.released", cause=cause)

    async def _retry(self, backoff: Backoff) -> None:
        """Have the run tried again later. Nothing is written: what is open the next attempt closes and supersedes."""
        await self._log.flush()
        waits = await self._database.run(
            lambda c: retries.release(c, self.lease, seconds=backoff.seconds, cause=backoff.cause),
            patience_seconds=_RELEASE_PATIENCE_SECONDS,
        )
        if not waits:
            raise LeaseLost
        self._retried = True
        retry = self._run.retries + 1
        log.warning("run.retrying", cause=backoff.cause, seconds=round(backoff.seconds, 3), retry=retry)
