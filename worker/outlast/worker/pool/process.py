"""One child process of a worker, seen from the parent.

It comes from a fork server, which is small, has no threads and has loaded what children need; the parent has Celery's.
"""

from __future__ import annotations

import asyncio
import math
import multiprocessing
import os
import socket
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence, Set as AbstractSet
from contextlib import suppress
from multiprocessing.context import ForkServerProcess

from outlast.shared.domain.runs import AgentKind, Lease
from outlast.shared.settings import Settings
from outlast.worker import recording
from outlast.worker.attempt import Outcome, Stop
from outlast.worker.dispatcher import Dispatcher
from outlast.worker.executing import MEMORY_BYTES, Marks
from outlast.worker.lease_clock import LeaseClock
from outlast.worker.pulse import Pulse

from . import child, output
from .channel import Channel, leases_from_wire, leases_to_wire
from .child import Shared

_context = multiprocessing.get_context("forkserver")
_starting = threading.Lock()

_STACKS_BYTES = 64 * 1024
_STACKS_SECONDS = 0.3
_LAST_WORDS_SECONDS = 1.0


class Child:
    """One process. As an executor it takes runs while it lives."""

    def __init__(
        self, process: ForkServerProcess, shared: Shared, channel: Channel, slots: int, isolated: bool
    ) -> None:
        self._process = process
        self._channel = channel
        self._stacks = shared.stacks
        self._output = output.log_lines(shared.output, self.pid)
        self._slots = slots
        self._clock = LeaseClock(shared.clock)
        self._told: set[Lease] = set()
        self._exit_code: int | None = None
        self.isolated = isolated
        self.agents: Mapping[str, AgentKind] = {}
        self.limit: Callable[[], float] = lambda: math.inf
        """How many runs it takes at most, whatever it has been given."""
        self.marks = Marks(shared.marks)
        self.pulse = Pulse(shared.pulse)
        self.ready = asyncio.Event()
        self.worn = asyncio.Event()
        """Code of a run goes on in it although its attempt is over: it finishes what it has, and is replaced."""
        self.exited = asyncio.Event()
        asyncio.get_running_loop().add_reader(process.sentinel, self._on_exit)

    @classmethod
    async def start_process(cls, settings: Settings, *, isolated: bool) -> Child:
        memory = _context.RawArray("B", MEMORY_BYTES), _context.RawValue("d"), _context.RawValue("d")
        (ours, theirs), (our_stacks, their_stacks) = socket.socketpair(), socket.socketpair()
        our_output, their_output = _context.Pipe(duplex=False)
        our_stacks.setblocking(False)
        given = Shared(*memory, theirs, their_stacks, their_output)
        with theirs, their_stacks, their_output:
            starting = asyncio.create_task(asyncio.to_thread(_start, given, settings))
            try:
                process = await asyncio.shield(starting)
            except BaseException:
                for end in (ours, our_stacks, our_output):
                    end.close()
                with suppress(Exception):
                    (await starting).kill()  # the thread goes on, and passes on what must be open until then
                raise
        channel, shared = await Channel.over(ours), Shared(*memory, ours, our_stacks, our_output)
        return cls(process, shared, channel, 1 if isolated else settings.concurrency, isolated)

    @property
    def pid(self) -> int:
        assert self._process.pid is not None, "it has been started"
        return self._process.pid

    @property
    def slots(self) -> int:
        return 0 if self.exited.is_set() or self.worn.is_set() else int(min(self._slots, self.limit()))

    def was_told_to_stop(self, held: AbstractSet[Lease]) -> bool:
        """Whether one of these attempts has been."""
        return bool(self._told & held)

    def start(self, leases: Sequence[Lease], claimed_at: float) -> None:
        now = time.monotonic()
        self._channel.send("start", leases=leases_to_wire(leases), claimed_at=claimed_at, told_at=now)

    def stop(self, lease: Lease, why: Stop) -> None:
        if why is not Stop.DRAIN:
            self._told.add(lease)
        self._channel.send("stop", leases=leases_to_wire([lease]), why=why.value)

    def renewed(self, began: float) -> None:
        self._clock.renewed(began)

    def tell_exit(self) -> None:
        self._channel.send("exit")

    def kill(self) -> None:
        if not self.exited.is_set():
            self._process.kill()

    async def stacks(self) -> str:
        """What its threads are doing, by its own word; nothing if it cannot say."""
        with suppress(ProcessLookupError):
            os.kill(self.pid, child.DUMP_SIGNAL)
        said = b""
        with suppress(TimeoutError, OSError):
            while len(said) < _STACKS_BYTES:
                async with asyncio.timeout(_STACKS_SECONDS):
                    said += await asyncio.get_running_loop().sock_recv(self._stacks, _STACKS_BYTES)
        return said.decode(errors="replace")

    async def serve(self, dispatcher: Dispatcher) -> str | None:
        """Pass on what the child says, until it says no more. Returns why it could not start, if it said so."""
        reason: str | None = None
        async for message in self._channel.messages():
            match message["kind"]:
                case "ready":
                    self.agents = {name: AgentKind(kind) for name, kind in message["agents"].items()}
                    self.ready.set()
                    dispatcher.add(self)
                case "ended":
                    [lease] = leases_from_wire(message["leases"])
                    self._told.discard(lease)
                    dispatcher.ended(lease, Outcome.from_wire(message["outcome"]))
                case "worn":
                    self.worn.set()
                    dispatcher.worn(message["by"])
                case "counted":
                    dispatcher.tally.add(message["counters"], message["samples"])
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

    async def last_words(self) -> None:
        """Until what it wrote is logged; not for long, for a subprocess may hold the pipe and live on."""
        await asyncio.to_thread(self._output.join, _LAST_WORDS_SECONDS)

    def close(self) -> None:
        self._channel.close()
        self._stacks.close()
        self._process.join()
        self._process.close()

    def _on_exit(self) -> None:
        asyncio.get_running_loop().remove_reader(self._process.sentinel)
        self._exit_code = self._process.exitcode
        self.exited.set()


def _start(shared: Shared, settings: Settings) -> ForkServerProcess:
    """Fork a child. multiprocessing would run this process's script, and load Celery, in it: the script is hidden."""
    recording_too = [recording.MODULE] if recording.installed(settings) else []
    _context.set_forkserver_preload([f"{__package__}.preload", *settings.preload, *recording_too])
    process = _context.Process(target=child.main, args=(shared, settings), name="outlast child", daemon=False)
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
