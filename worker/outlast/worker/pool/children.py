"""A worker's child processes: as many as it is to have, replaced when they die or are worn, and ended together."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import structlog

from outlast.shared.settings import Settings, SettingsError
from outlast.worker.dispatcher import Dispatcher

from .life import Life
from .process import Child
from .suspects import Suspects

log = structlog.get_logger()

_STEADY_SECONDS = 30.0  # a child that lived so long is not in a crash loop
_PAUSES_SECONDS = (0.0, 0.5, 2.0, 5.0, 15.0)
_EXIT_SECONDS = 3.0
_TELL_SECONDS = 10.0  # between two words about agents that are still being loaded


class Children:
    """One that dies is replaced at once, or after a pause if it keeps dying by itself."""

    def __init__(self, settings: Settings, dispatcher: Dispatcher) -> None:
        self._settings = settings
        self._dispatcher = dispatcher
        self._lives: dict[asyncio.Task[None], Life] = {}
        self._keepers: list[asyncio.Task[None]] = []
        self._stopping = False
        self._suspects = Suspects()

    @property
    def ready(self) -> int:
        """How many are there that take runs, or have some."""
        children = [life.child for life in self._lives.values()]
        return sum(child.ready.is_set() and not child.exited.is_set() for child in children)

    async def start(self) -> None:
        """Until all are ready. Raises SettingsError with the reason of a child that cannot load its agents."""
        isolated = [False] * self._settings.worker_children + [True] * self._settings.isolated_worker_children
        ready = [asyncio.Event() for _ in isolated]
        self._keepers = [asyncio.create_task(self._keep(*each)) for each in zip(ready, isolated, strict=True)]
        all_ready = asyncio.create_task(_all_set(ready))
        await self.wait_for_first(all_ready, *self._keepers)
        if not all_ready.done():
            all_ready.cancel()
            failed = next(keeper for keeper in self._keepers if keeper.done())
            await self.stop()
            failed.result()

    async def wait_for_first(self, *tasks: asyncio.Task[None]) -> None:
        """Until one of the tasks is done, with a word about what is waited for: an import may take its time."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        while not (await asyncio.wait(tasks, timeout=_TELL_SECONDS, return_when=asyncio.FIRST_COMPLETED))[0]:
            log.info("agents.loading", agents=", ".join(self._settings.agents), seconds=round(loop.time() - began))

    async def _keep(self, ready: asyncio.Event, isolated: bool) -> None:
        """Have one child in this place, again and again. ``ready`` is set when the first one is."""
        loop = asyncio.get_running_loop()
        deaths = 0
        while not self._stopping:
            began, explained, reason = loop.time(), False, None
            try:
                life = await self._live(ready, isolated)
                explained, reason = life.explained, life.reason
            except Exception as error:  # the fork server died just then, or there is no memory for one more
                log.exception("child.broke")
                reason = f"A child of the worker could not be started: {type(error).__name__}"
            if self._stopping:
                return
            if not ready.is_set():
                raise SettingsError(reason or "A child of the worker died before it was ready; its log says more")
            if reason:
                log.error("child.cannot_start", reason=reason)
            # A run that kills its process is given up soon; the others must not wait for that.
            deaths = 0 if explained or loop.time() - began > _STEADY_SECONDS else deaths + 1
            await asyncio.sleep(_PAUSES_SECONDS[min(deaths, len(_PAUSES_SECONDS)) - 1] if deaths else 0)

    async def _live(self, ready: asyncio.Event, isolated: bool) -> Life:
        """One child, to its end, or until it is worn: it then ends by itself, and another takes its place."""
        child = await Child.start_process(self._settings, isolated=isolated)
        child.limit = self._suspects.limit
        life = Life(child, self._settings, self._dispatcher, self._suspects)
        task = asyncio.create_task(life.run())
        self._lives[task] = life
        task.add_done_callback(self._lives.pop)
        try:
            await _first_of(task, child.ready)
            if child.ready.is_set():
                ready.set()
            await _first_of(task, child.worn)
        except asyncio.CancelledError:
            task.cancel()
            raise
        if task.done():
            task.result()
        return life

    async def stop(self) -> None:
        """End them; whoever does not go is killed."""
        self._stopping = True
        lives = list(self._lives.values())
        for life in lives:
            life.stop()
            if not life.child.ready.is_set():  # it has nothing to tidy up, and does not listen yet
                life.child.kill()
        await asyncio.gather(*(life.child.wait(_EXIT_SECONDS) for life in lives))
        for life in lives:
            life.child.kill()
        for task in (*self._keepers, *self._lives):
            task.cancel()
        await asyncio.gather(*self._keepers, *self._lives, return_exceptions=True)


async def _all_set(events: Sequence[asyncio.Event]) -> None:
    for event in events:
        await event.wait()


async def _first_of(task: asyncio.Task[None], event: asyncio.Event) -> None:
    waiting = asyncio.create_task(event.wait())
    try:
        await asyncio.wait({task, waiting}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        waiting.cancel()
