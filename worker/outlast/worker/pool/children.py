"""A worker's child processes, seen from the parent: started, watched, replaced when they die, and ended together.

They come from a fork server, which is small, has no threads and has loaded what they need; the parent has Celery's.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import socket
import sys
import threading
from collections.abc import Sequence
from multiprocessing.context import ForkServerProcess
from typing import Any

import structlog

from outlast.shared.domain.runs import Lease, RunStatus
from outlast.shared.settings import Settings, SettingsError
from outlast.worker.attempt import Outcome, Stop
from outlast.worker.dispatcher import Dispatcher
from outlast.worker.executing import MARK_BYTES, executing
from outlast.worker.lease_clock import LeaseClock

from . import child
from .channel import Channel, leases_from_wire, leases_to_wire

log = structlog.get_logger()

_context = multiprocessing.get_context("forkserver")
_starting = threading.Lock()

_STEADY_SECONDS = 30.0  # a child that lived so long is not in a crash loop
_PAUSES_SECONDS = (0.0, 0.5, 2.0, 5.0, 15.0)
_EXIT_SECONDS = 3.0


class Child:
    """One process. As an executor it takes runs while it lives."""

    def __init__(self, process: ForkServerProcess, channel: Channel, slots: int, marks: Any, clock: LeaseClock) -> None:
        self._process = process
        self._marks = marks
        self._clock = clock
        self._channel = channel
        self._slots = slots
        self._exit_code: int | None = None
        self.exited = asyncio.Event()
        asyncio.get_running_loop().add_reader(process.sentinel, self._on_exit)

    @classmethod
    async def start_process(cls, settings: Settings) -> Child:
        marks, clock = _context.RawArray("B", MARK_BYTES), _context.RawValue("d")
        ours, theirs = socket.socketpair()
        with theirs:
            try:
                process = await asyncio.to_thread(_start, theirs, settings, marks, clock)
            except BaseException:
                ours.close()
                raise
        return cls(process, await Channel.over(ours), settings.concurrency, marks, LeaseClock(clock))

    @property
    def pid(self) -> int | None:
        return self._process.pid

    @property
    def slots(self) -> int:
        return 0 if self.exited.is_set() else self._slots

    @property
    def executing(self) -> Lease | None:
        """Whose code it is in the middle of, or was when it died."""
        return executing(self._marks)

    def start(self, leases: Sequence[Lease], claimed_at: float) -> None:
        self._channel.send("start", leases=leases_to_wire(leases), claimed_at=claimed_at)

    def stop(self, lease: Lease, why: Stop) -> None:
        self._channel.send("stop", leases=leases_to_wire([lease]), why=why.value)

    def renewed(self, began: float) -> None:
        self._clock.renewed(began)

    def tell_exit(self) -> None:
        self._channel.send("exit")

    def kill(self) -> None:
        if not self.exited.is_set():
            self._process.kill()

    async def serve(self, dispatcher: Dispatcher, ready: asyncio.Event) -> str | None:
        """Pass on what the child says, until it says no more. Returns why it could not start, if it said so."""
        reason: str | None = None
        async for message in self._channel.messages():
            match message["kind"]:
                case "ready":
                    ready.set()
                    dispatcher.add(self)
                case "ended":
                    [lease] = leases_from_wire(message["leases"])
                    status = RunStatus(message["status"]) if message["status"] else None
                    dispatcher.ended(lease, Outcome(status, message["events"], message["retried"]))
                case _:  # cannot_start
                    reason = message["reason"]
        return reason

    async def wait(self, seconds: float | None = None) -> int | None:
        """Its exit code, negative for a signal; None when it still lives after so long."""
        try:
            await asyncio.wait_for(self.exited.wait(), seconds)
        except TimeoutError:
            return None
        return self._exit_code

    def close(self) -> None:
        self._channel.close()
        self._process.join()
        self._process.close()

    def _on_exit(self) -> None:
        asyncio.get_running_loop().remove_reader(self._process.sentinel)
        self._exit_code = self._process.exitcode
        self.exited.set()


class Children:
    """As many as the settings say. One that dies is replaced at once, or after a pause if it keeps dying by itself."""

    def __init__(self, settings: Settings, dispatcher: Dispatcher) -> None:
        self._settings = settings
        self._dispatcher = dispatcher
        self._living: set[Child] = set()
        self._keepers: list[asyncio.Task[None]] = []
        self._stopping = False

    async def start(self) -> None:
        """Until all are ready. Raises SettingsError with the reason of a child that cannot load its agents."""
        ready = [asyncio.Event() for _ in range(self._settings.worker_children)]
        self._keepers = [asyncio.create_task(self._keep(event)) for event in ready]
        all_ready = asyncio.create_task(_all_set(ready))
        await asyncio.wait({all_ready, *self._keepers}, return_when=asyncio.FIRST_COMPLETED)
        if not all_ready.done():
            all_ready.cancel()
            failed = next(keeper for keeper in self._keepers if keeper.done())
            await self.stop()
            failed.result()

    async def _keep(self, ready: asyncio.Event) -> None:
        loop = asyncio.get_running_loop()
        deaths = 0
        while not self._stopping:
            began, offender, reason = loop.time(), None, None
            try:
                reason, offender = await self._live(ready)
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
            explained = offender is not None or loop.time() - began > _STEADY_SECONDS
            deaths = 0 if explained else deaths + 1
            await asyncio.sleep(_PAUSES_SECONDS[min(deaths, len(_PAUSES_SECONDS)) - 1] if deaths else 0)

    async def _live(self, ready: asyncio.Event) -> tuple[str | None, Lease | None]:
        """One child, from its start to its end: why it could not start, and whose code was executing when it died."""
        living = await Child.start_process(self._settings)
        pid = living.pid
        self._living.add(living)
        try:
            reason = await living.serve(self._dispatcher, ready)
            if self._stopping or reason:
                await living.wait(_EXIT_SECONDS)
        finally:
            living.kill()  # what closes its channel and lives on is of no use
            code = await living.wait()
            self._living.discard(living)
            living.close()
        if not self._stopping and ready.is_set():
            log.warning("child.died", pid=pid, exit_code=code)
            self._dispatcher.lost(living, _cause(code), living.executing)
        return reason, living.executing

    async def stop(self) -> None:
        """End them; whoever does not go is killed."""
        self._stopping = True
        for living in self._living:
            living.tell_exit()
        await asyncio.gather(*(living.wait(_EXIT_SECONDS) for living in self._living))
        for living in self._living:
            living.kill()
        for keeper in self._keepers:
            keeper.cancel()
        await asyncio.gather(*self._keepers, return_exceptions=True)


async def _all_set(events: Sequence[asyncio.Event]) -> None:
    for event in events:
        await event.wait()


def _cause(code: int | None) -> str:
    if code is not None and code < 0:
        return f"child_killed_by_signal_{-code}"
    return f"child_exited_{code}"


def _start(end: socket.socket, settings: Settings, marks: Any, clock: Any) -> ForkServerProcess:
    """Fork a child. multiprocessing would run this process's script, and load Celery, in it: the script is hidden."""
    _context.set_forkserver_preload([f"{__package__}.preload", *settings.preload])
    process = _context.Process(
        target=child.main, args=(end, settings, marks, clock), name="outlast child", daemon=False
    )
    script = sys.modules["__main__"]
    with _starting:
        spec, script.__spec__ = script.__spec__, None
        file = script.__dict__.pop("__file__", None)
        try:
            process.start()
        finally:
            script.__spec__ = spec
            if file is not None:
                script.__file__ = file
    return process
