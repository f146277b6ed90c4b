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

from outlast.agent import AgentError
from outlast.shared.connections import Database
from outlast.shared.domain.errors import LeaseLost, Unavailable
from outlast.shared.domain.events import Event
from outlast.shared.domain.ids import item_id, response_id
from outlast.shared.domain.retry import Backoff
from outlast.shared.domain.runs import Lease, Run, RunStatus
from outlast.shared.settings import Settings
from outlast.shared.store import events, leases, retries, runs, saves
from outlast.shared.wire import event_from, from_json

from .agents.adapter import Adapter
from .failures import consequence
from .flusher import Flusher, ending_of
from .output import Output
from .output.replay import Kept, Past, replay
from .stage import Drained, Stage

log = structlog.get_logger()

_RELEASE_PATIENCE_SECONDS = 5.0


class Stop(Enum):
    """Why an attempt is ended from outside."""

    CANCEL = "cancel"
    """Somebody wants the run to end."""
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
        self._driving: asyncio.Task[None] | None = None

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
            if self._driving is not None:
                self._driving.cancel()

    async def run(self) -> Outcome:
        """Every outcome of the agent's code ends the run or hands it back. Raises Unavailable only."""
        with structlog.contextvars.bound_contextvars(run=response_id(self._run.run_id), attempt=self._run.attempt):
            log.info("run.claimed", agent=self._run.agent)
            try:
                past = await self._past()
                output = Output(self._run, self._new_id, time.time, past)
                refusal = self._refusal()
                if refusal not in (Stop.LOST, Stop.RELEASE):  # else it is another attempt that begins
                    await self._log.append(output.begin(None if refusal else await self._surviving(past)))
                self._stage = Stage(self._run, output, self._log, self._database, past, self._settings)
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
        return Outcome(self._finished_as, self._log.next_seq - self._run.last_seq - 1, self._retried)

    async def _fail_broken(self) -> None:
        """End a run that this code cannot go on with, from what its log holds."""
        await self._log.abandon()
        past = await self._replayed()
        output = Output(replace(self._run, last_seq=past.last_seq), self._new_id, time.time, past)
        last, response = output.fail("internal_error", "The run could not be continued.")
        ending = ending_of(RunStatus.FAILED, last, response)
        if await self._database.run(lambda c: runs.finish(c, self._database.schema, self.lease, ending)):
            self._finished_as = RunStatus.FAILED

    async def _past(self) -> Past:
        """What is stored of earlier attempts; a first attempt has nothing to look for."""
        return Past() if self._run.attempt == 1 else await self._replayed()

    async def _replayed(self) -> Past:
        lines = await self._database.run(lambda c: events.read_all(c, self._run.run_id))
        saved = await self._database.run(lambda c: saves.read(c, self._run.run_id))
        return replay(map(event_from, lines), saved and Kept(saved.kept_seq, **from_json(saved.values)))

    async def _surviving(self, past: Past) -> Collection[str]:
        """What of all that is still part of the answer this attempt goes on from."""
        if self._agent is None or not past.said:
            return ()
        return await self._agent.surviving(self._run, past.said, self._database)

    async def _drive_and_finish(self, stage: Stage) -> None:
        output = stage.output
        match await self._drive(stage):
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
        self._driving = asyncio.create_task(self._agent.execute(stage))
        limit = asyncio.timeout(_seconds_until(self._run.deadline_at))
        try:
            async with limit:
                await self._driving
        except TimeoutError as error:
            return _timeout() if limit.expired() else self._after(error)
        except asyncio.CancelledError:
            return self._stop or AgentError("The agent's code was cancelled from within.")
        except LeaseLost:
            return Stop.LOST
        except Drained:
            return Stop.DRAIN
        except Unavailable:  # of the agent's checkpoints: no fault of its own, another attempt goes on from them
            raise
        except AgentError as error:
            return error
        except Exception as error:  # noqa: BLE001 — the agent's code may raise anything
            return self._after(error)
        return None

    def _refusal(self) -> Stop | AgentError | None:
        """Why the agent is not even started; nothing of what was said before is taken back then."""
        if self._agent is None:
            return AgentError(f"This worker has no agent named {self._run.agent!r}.", code="agent_not_found")
        if self._run.cancel_requested:
            self.stop(Stop.CANCEL)
        if self._stop is not None:
            return self._stop
        if _seconds_until(self._run.deadline_at) == 0:  # code that kills its worker would do so again
            return _timeout()
        if spent := self._spent():
            return spent
        return Stop.RELEASE if self._draining else None

    def _spent(self) -> AgentError | None:
        """Why this run is not tried again. What the run did to its processes counts, and, much later, what did not."""
        charged, cause = self._run.charged_attempts, self._run.last_cause
        if charged >= self._settings.max_attempts:
            how = f"{charged} of its attempts ended with the death of their process (OUTLAST_MAX_ATTEMPTS"
        elif (others := self._others_ended()) >= self._settings.max_takeovers:
            how = f"{others} of its attempts ended with their worker (OUTLAST_MAX_TAKEOVERS"
        else:
            return None
        return AgentError(f"The run was given up: {how}; the last of them: {cause}).", code="max_attempts_exceeded")

    def _others_ended(self) -> int:
        """Attempts that ended with their worker, since the run was submitted or an operator had it retried."""
        run = self._run
        return run.attempt - 1 - run.forgiven_attempts - run.charged_attempts - run.retries

    def _after(self, error: Exception) -> Stop | Backoff | AgentError:
        """What follows from an exception of the agent's code: another try, or the end with words for the client."""
        policy = self._settings.retry_policy(self._run.agent)
        follows = consequence(error, self._run, policy, now=datetime.now(UTC), jitter=random.random())
        # Another try is not what follows when it has been stopped: that may be why it failed.
        return self._stop if self._stop is not None and isinstance(follows, Backoff) else follows

    async def _finish(
        self, status: RunStatus, last: list[Event], response: dict[str, Any], checkpoint_id: str | None
    ) -> None:
        await self._log.finish(last, status, response, checkpoint_id)
        self._finished_as = status
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


def _timeout() -> AgentError:
    return AgentError("The run took longer than it may (TASK_TIMEOUT_SECONDS).", code="task_timeout")


def _seconds_until(deadline: datetime | None) -> float | None:
    return None if deadline is None else max((deadline - datetime.now(UTC)).total_seconds(), 0)
