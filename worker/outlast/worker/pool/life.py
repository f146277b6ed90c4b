"""One child of a worker, from its start to its end: what it says is passed on, and its loop is watched."""

from __future__ import annotations

import asyncio
import sysconfig
import time
from collections.abc import Set as AbstractSet

import structlog

import outlast
from outlast.shared.background import Background
from outlast.shared.domain.ids import response_id
from outlast.shared.domain.runs import Lease
from outlast.shared.settings import Settings
from outlast.worker import stalls
from outlast.worker.dispatcher import Dispatcher
from outlast.worker.pulse import Watch

from .process import Child
from .suspects import Suspects
from .threads import at_work

log = structlog.get_logger()

_EXIT_SECONDS = 3.0
_LOOKS = 10  # at a loop, in the time after which it counts as stalled


class Life:
    def __init__(self, child: Child, settings: Settings, dispatcher: Dispatcher, suspects: Suspects) -> None:
        self.child = child
        self._suspects = suspects
        self.reason: str | None = None
        """Why it could not start."""
        self.explained = False
        """Whether its end is the doing of a run, or wanted."""
        self._settings = settings
        self._dispatcher = dispatcher
        self._stalled_by: frozenset[Lease] | None = None
        self._stalled_at: str | None = None
        self._stopping = False
        self._background = Background()

    async def run(self) -> None:
        watching = self._background.start(self._watch())
        try:
            self.reason = await self.child.serve(self._dispatcher)
            if self._stopping or self.reason:
                await self.child.wait(_EXIT_SECONDS)
        finally:
            watching.cancel()
            self.child.kill()  # what closes its channel and lives on is of no use
            code = await self.child.wait()
            self._bury(code)
            self.child.close()
            await self.child.last_words()

    def stop(self) -> None:
        """Ask it to end; what it still has is not its any more."""
        self._stopping = True
        self.child.tell_exit()

    def _bury(self, code: int | None) -> None:
        held = self._dispatcher.held_by(self.child)
        if self._stopping or not self.child.ready.is_set():
            return
        if self._stalled_by is not None:
            self.explained = True
            cause = stalls.cause_at(self._stalled_at)
            self._dispatcher.lost(self.child, stalls.CAUSE, self._stalled_by, stall=cause)
            return
        executing = self._executing & held
        culprits = executing if len(executing) == 1 else self._suspects.convicted(executing or held)
        self.explained = bool(executing or culprits) or self.child.worn.is_set()
        if held or not self.child.worn.is_set():
            log.warning("child.died", pid=self.child.pid, exit_code=code)
        self._dispatcher.lost(self.child, _cause(code), culprits)

    @property
    def _executing(self) -> AbstractSet[Lease]:
        """Whose code it is in the middle of, or was when it died; nothing if there is no telling."""
        marks = self.child.marks
        return {marks.on_loop} if marks.on_loop else set(marks.in_threads.values())

    async def _watch(self) -> None:
        """Kill it when its loop stands still; end it when it is worn and has nothing left to do."""
        await self.child.ready.wait()
        stall = self._settings.stall_seconds
        watch = Watch(self.child.pulse, longest_gap=stall / 3)
        while True:
            await asyncio.sleep(stall / _LOOKS)
            held = self._dispatcher.held_by(self.child)
            if self.child.worn.is_set() and not held:
                return await self._retire()
            if watch.still_seconds(time.monotonic()) >= stall and self._is_to_be_freed(held):
                return await self._end_stalled()

    def _is_to_be_freed(self, held: AbstractSet[Lease]) -> bool:
        """A run that has the process to itself may block it, but not for longer than it may run."""
        return not self.child.isolated or self.child.was_told_to_stop(held)

    async def _retire(self) -> None:
        log.info("child.retired", pid=self.child.pid)
        self.child.tell_exit()
        await self.child.wait(_EXIT_SECONDS)
        self.child.kill()  # what made it worn keeps it from exiting

    async def _end_stalled(self) -> None:
        on_loop = self.child.marks.on_loop
        culprit = on_loop or await at_work(self.child.pid, self.child.marks.in_threads)
        stacks = await self.child.stacks()
        place = self._place(stacks, on_loop=on_loop is not None) if culprit else None
        log.error(
            "child.stalled",
            pid=self.child.pid,
            run=response_id(culprit.run_id) if culprit else None,
            attempt=culprit and culprit.attempt,
            where=place,
            reason=place and stalls.explanation(place, self._settings.stall_seconds),
            stacks=stacks,
        )
        self._stalled_at = place
        self._stalled_by = frozenset([culprit] if culprit else ())
        self.child.kill()

    def _place(self, stacks: str, *, on_loop: bool) -> str | None:
        """Where in the agent's own files its code was."""
        own = {target.partition(":")[0].partition(".")[0] for target in self._settings.agents.values()}
        return stalls.place_of(stacks, on_loop=on_loop, foreign=_folders(), own=own)


def _folders() -> list[str]:
    """Where code is that no agent's author has written."""
    return [*outlast.__path__, sysconfig.get_path("stdlib"), sysconfig.get_path("platstdlib")]


def _cause(code: int | None) -> str:
    if code is not None and code < 0:
        return f"child_killed_by_signal_{-code}"
    return f"child_exited_{code}"
