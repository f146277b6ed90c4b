"""What the code of an agent is given to play on: who asks for what, and where what it says goes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from outlast.agent import Context, Request, Secret
from outlast.shared.connections import Database
from outlast.shared.domain.errors import LeaseLost
from outlast.shared.domain.ids import response_id
from outlast.shared.domain.runs import Durability, Run
from outlast.shared.output import Output
from outlast.shared.output.items import Item, Path
from outlast.shared.output.replay import Past
from outlast.shared.settings import Settings
from outlast.shared.store import saves
from outlast.shared.wire import to_json

from .concealment import masked
from .flusher import RunLog

# What an attempt keeps for the next is worth waiting for: until somebody else holds the lease nobody else can go on.
KEEP_PATIENCE_SECONDS = 3600.0


class Drained(Exception):
    """The agent has stopped where another attempt can go on, as it was asked to."""


class Stage:
    """One attempt, as an adapter sees it."""

    def __init__(
        self,
        run: Run,
        output: Output,
        run_log: RunLog,
        database: Database,
        past: Past,
        settings: Settings,
        user_token: Secret | None = None,
    ) -> None:
        self.run = run
        self.output = output
        self.database = database
        self.request = _request(run)
        self.saved: dict[str, Any] = dict(past.saved)
        """What this run has saved; the agent sees it grow."""
        self.context = _context(run, self.saved, user_token)
        self.checkpoint_id: str | None = None
        """The agent's latest checkpoint; it is kept with the run when it ends."""
        asked = run.request.get("durability")
        self.durability = Durability(asked) if asked else settings.durability_of(run.agent)
        self.draining = False
        """The worker is about to stop: an agent that can stop where it will go on does so, and raises Drained."""
        self._log = run_log
        self._past = past
        self._keeping = asyncio.Lock()
        self._on_drain: Callable[[], None] = lambda: None
        self._closed = False

    @property
    def surviving(self) -> Sequence[Item]:
        """What earlier attempts said that still counts."""
        return [item for item in self._past.items if item.surviving]

    @property
    def was_corrected(self) -> bool:
        """Whether an earlier attempt took back what it had said itself."""
        return self._past.corrected

    def drain(self) -> None:
        """Ask the agent to stop where it can go on."""
        self.draining = True
        self._on_drain()

    def when_draining(self, stop: Callable[[], None]) -> None:
        """Call this when the worker is about to stop; at once if it is already."""
        self._on_drain = stop
        if self.draining:
            stop()

    def close(self) -> None:
        """The attempt is over: what code of the agent's is left says nothing any more."""
        self._closed = True

    async def emit(self, emission: object, path: Path = ()) -> None:
        """Say something; waits while too much is not stored yet. Raises EmissionError and LeaseLost."""
        self.tell(emission, path)
        if self._log.must_pause:
            await self._log.pause()

    def tell(self, emission: object, path: Path = ()) -> None:
        """Say something without waiting; then `keep_pace` where that can be. Raises EmissionError and LeaseLost."""
        self._check()
        if new := self.output.emit(emission, path):
            self._log.add(new)

    def withdraw(self, key: str) -> None:
        """Take back what was said under this key. Raises LeaseLost."""
        self._check()
        if new := self.output.withdraw(key):
            self._log.add(new)

    @property
    def ahead(self) -> bool:
        """Whether the agent has said more than can wait: it is to `keep_pace`."""
        return self._log.must_pause

    async def keep_pace(self) -> None:
        """Wait while too much of what was said is not stored yet. Raises LeaseLost."""
        await self._log.pause()

    async def pause(self) -> int:
        """End what is being written and store all. Returns the number of the last event. Raises LeaseLost."""
        self._check()
        if new := self.output.pause():
            await self._log.append(new)
        await self._log.flush()
        return self._log.next_seq - 1

    async def keep(self, kept_seq: int, values: Mapping[str, Any]) -> None:
        """Save this for the next attempt, and what no event tells of yet. Raises LeaseLost."""
        async with self._keeping:  # each replaces the one before
            self._check()
            untold = self.output.untold()
            await self._log.flush()  # what was untold before, and is not any more, is in the log then
            kept = masked(to_json({"values": values, "untold": untold}), self.context.user_token)
            saved, lease = saves.Saved(kept_seq, kept), self._log.lease
            work = partial(saves.save, lease=lease, saved=saved)
            if not await self.database.run(work, patience_seconds=KEEP_PATIENCE_SECONDS):
                self.lost()
                raise LeaseLost

    async def flush(self) -> None:
        """Until everything that was said is stored. Raises LeaseLost when it never will be."""
        await self._log.flush()

    async def flush_all(self) -> None:
        """The same, with what no event tells of yet: the end of a step that will not be run again."""
        if self.output.untold():
            await self.keep(0, {})
        else:
            await self._log.flush()

    def lost(self) -> None:
        """A write of the agent's was refused, the run is another's: end the attempt."""
        self._log.refused()

    def _check(self) -> None:
        if self._closed:
            raise LeaseLost


def items_of(request: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
    """Return the items of a request's input; a text is one message."""
    given = request["input"]
    return [{"type": "message", "role": "user", "content": given}] if isinstance(given, str) else given


def _request(run: Run) -> Request:
    return Request(input=items_of(run.request), body=run.request)


def _context(run: Run, saved: Mapping[str, Any], user_token: Secret | None) -> Context:
    return Context(
        response_id=response_id(run.run_id),
        thread_id=run.thread,
        principal=run.principal,
        agent=run.agent,
        attempt=run.attempt,
        deadline=run.deadline_at,
        saved=saved,
        user_token=user_token,
    )
