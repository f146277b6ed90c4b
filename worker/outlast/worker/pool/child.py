"""A child process of a worker: one event loop that runs agents, told by its parent which. It loads no Celery."""

from __future__ import annotations

import asyncio
import ctypes
import os
import signal
import socket
import sys
from multiprocessing import forkserver
from types import FrameType
from typing import Any

import uvloop

from outlast.shared import logs
from outlast.shared.domain.errors import OutlastError
from outlast.shared.domain.runs import Lease
from outlast.shared.settings import Settings
from outlast.worker.agents.loading import loaded
from outlast.worker.attempt import Outcome, Stop
from outlast.worker.executing import mark_steps
from outlast.worker.lease_clock import LeaseClock
from outlast.worker.runtime import open_runtime

from .channel import Channel, leases_from_wire, leases_to_wire

_PR_SET_PDEATHSIG = 1
_EXIT_WITHOUT_PARENT = 70


def main(end: socket.socket, settings: Settings, marks: Any, clock: Any) -> None:
    """Serve until the parent says stop, or is gone.

    Two pieces of memory are shared with it: in ``marks`` the child says whose code is executing, in ``clock`` the
    parent says when it renewed the leases.
    """
    _die_with_parent()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT):
        # A handler, not SIG_IGN, which the agents' own subprocesses would inherit. The parent decides when this ends.
        signal.signal(number, _ignore)
    logs.configure(settings, part="worker")
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        mark_steps(runner.get_loop(), marks)
        runner.run(_serve(end, settings, LeaseClock(clock)))


def _ignore(_number: int, _frame: FrameType | None) -> None:
    return


async def _serve(end: socket.socket, settings: Settings, clock: LeaseClock) -> None:
    channel = await Channel.over(end)

    def ended(lease: Lease, outcome: Outcome) -> None:
        status = outcome.status.value if outcome.status else None
        channel.send(
            "ended", leases=leases_to_wire([lease]), status=status, events=outcome.events, retried=outcome.retried
        )

    try:
        async with loaded(settings.agents) as agents, open_runtime(settings, agents, ended, clock) as runtime:
            channel.send("ready")
            async for message in channel.messages():
                leases = leases_from_wire(message.get("leases", ()))
                match message["kind"]:
                    case "start":
                        runtime.start(leases, message["claimed_at"])
                    case "stop":
                        runtime.stop(leases[0], Stop(message["why"]))
                    case _:  # exit
                        return
            # The parent is gone: its leases end, and whoever takes the runs over must not find us still at work.
            os._exit(_EXIT_WITHOUT_PARENT)
    except OutlastError as error:
        channel.send("cannot_start", reason=error.message)
        await channel.flush()
    finally:
        channel.close()


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
