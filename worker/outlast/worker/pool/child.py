"""A child process of a worker: one event loop that runs agents, told by its parent which. It loads no Celery."""

from __future__ import annotations

import asyncio
import ctypes
import faulthandler
import os
import signal
import socket
import sys
from multiprocessing import forkserver
from multiprocessing.connection import Connection
from types import FrameType
from typing import Any, NamedTuple

import structlog

from outlast.shared import logs, tracing
from outlast.shared.background import Background
from outlast.shared.domain.errors import OutlastError
from outlast.shared.domain.runs import Lease
from outlast.shared.settings import Settings
from outlast.worker import loops, recording
from outlast.worker.agents.loading import loaded
from outlast.worker.attempt import Outcome, Stop
from outlast.worker.executing import Marks
from outlast.worker.lease_clock import LeaseClock
from outlast.worker.pulse import Pulse
from outlast.worker.runtime import Runtime, open_runtime

from . import output
from .channel import Channel, leases_from_wire, leases_to_wire

log = structlog.get_logger()

_PR_SET_PDEATHSIG = 1
_EXIT_WITHOUT_PARENT = 70
_TRACES_SECONDS = 1.0  # for spans that are not sent yet
_RECORDING_SECONDS = 1.0  # MLflow may be away: runs do not wait for it longer than that, and once for each process
DUMP_SIGNAL = signal.SIGUSR1


class Shared(NamedTuple):
    """What a child and its parent share."""

    marks: Any
    """Memory where the child says whose code is executing."""
    pulse: Any
    """Memory where it says that its loop moves."""
    clock: Any
    """Memory where the parent says when it renewed the leases."""
    channel: socket.socket
    """The child's end of it."""
    stacks: socket.socket
    """Where the child writes what its threads are doing, when it gets `DUMP_SIGNAL`."""
    output: Connection
    """The child's end of the pipe that becomes its standard output and error."""


def main(shared: Shared, settings: Settings) -> None:
    """Serve until the parent says stop, or is gone."""
    _die_with_parent()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT):
        # A handler, not SIG_IGN, which the agents' own subprocesses would inherit. The parent decides when this ends.
        signal.signal(number, _ignore)
    faulthandler.register(DUMP_SIGNAL, file=shared.stacks, all_threads=True)  # also while a thread holds the GIL
    logs.configure(settings, part="worker", stream=output.divert(shared.output))
    tracing.configure(settings, part="worker")
    with asyncio.Runner(loop_factory=loops.chosen(settings)) as runner:
        runner.run(_serve(shared, settings))
    tracing.stop(_TRACES_SECONDS)
    if not recording.stop(_TRACES_SECONDS):
        os._exit(0)  # else it would wait for MLflow's threads, which wait for the tracking server


def _ignore(_number: int, _frame: FrameType | None) -> None:
    return


async def _serve(shared: Shared, settings: Settings) -> None:
    channel, marks, clock = await Channel.over(shared.channel), Marks(shared.marks), LeaseClock(shared.clock)
    marks.mark_steps(asyncio.get_running_loop())

    def ended(lease: Lease, outcome: Outcome) -> None:
        channel.send("ended", leases=leases_to_wire([lease]), outcome=outcome)

    def worn(by: str) -> None:
        channel.send("worn", by=by)

    try:
        recording.configure(settings)
        async with (
            loaded(settings.agents, settings.graph_options) as agents,
            open_runtime(settings, agents, ended, clock, marks=marks, worn=worn) as runtime,
        ):
            await recording.ready(_RECORDING_SECONDS)
            channel.send("ready", agents={name: agent.kind for name, agent in agents.items()})
            telling = Background()
            telling.start(Pulse(shared.pulse).beat_forever())
            telling.start(_tell_counts(channel, runtime, settings.beat_seconds))
            if not await _obey(channel, runtime):
                # The parent is gone: its leases end, and whoever takes the runs over must not find us still at work.
                os._exit(_EXIT_WITHOUT_PARENT)
            await telling.cancel()
    except OutlastError as error:
        channel.send("cannot_start", reason=error.message)
        await channel.flush()
    finally:
        channel.close()


async def _obey(channel: Channel, runtime: Runtime) -> bool:
    """Do what the parent says, until it says to exit. False: it is gone without a word."""
    async for message in channel.messages():
        leases = leases_from_wire(message.get("leases", ()))
        match message["kind"]:
            case "start":
                runtime.start(leases, message["claimed_at"], message["told_at"])
            case "stop":
                runtime.stop(leases[0], Stop(message["why"]))
            case _:  # exit
                return True
    return False


async def _tell_counts(channel: Channel, runtime: Runtime, seconds: float) -> None:
    while True:
        await asyncio.sleep(seconds)
        if counted := runtime.counted():
            channel.send("counted", **counted)


def _die_with_parent() -> None:
    """Die with the fork server, even in the middle of code that never comes back to the loop.

    The fork server ends with the worker: it waits for the end of a pipe. Children inherit its writing end, to use the
    fork server themselves; this one lets go of it, or it would keep alive what is to kill it.
    """
    server: Any = forkserver._forkserver  # pyright: ignore[reportPrivateUsage] — there is no public way to it
    if server._forkserver_alive_fd is not None:
        os.close(server._forkserver_alive_fd)
        server._forkserver_alive_fd = server._forkserver_address = None
    if sys.platform == "linux":
        server_pid = os.getppid()
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != server_pid:  # it died just before
            os._exit(_EXIT_WITHOUT_PARENT)
