"""Servers and parts under one command: started, watched, started again when they die, and stopped by it."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import AsyncGenerator, Callable, Coroutine, Mapping
from contextlib import asynccontextmanager, suppress
from importlib.util import find_spec
from typing import Any

from outlast.infra.embedded import Postgres, Valkey

from .process import Process, api_answers
from .terminal import echo

_LOOK_SECONDS = 0.5


async def until_asked_to_stop(work: Coroutine[Any, Any, None], *, asked_again: Callable[[], None]) -> None:
    """Do the work until SIGTERM or Ctrl-C; it is cancelled then. Raises what ends the work before.

    ``asked_again`` is called at every such signal after the first."""
    stopping = asyncio.Event()

    def stop() -> None:
        if stopping.is_set():
            asked_again()
        stopping.set()

    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop)
    working, asked = asyncio.create_task(work), asyncio.create_task(stopping.wait())
    try:
        await asyncio.wait({working, asked}, return_when=asyncio.FIRST_COMPLETED)
        if working.done():
            working.result()
    finally:
        asked.cancel()
        working.cancel()
        with suppress(asyncio.CancelledError):
            await working


def environment(part: str, env: Mapping[str, str]) -> Mapping[str, str]:
    """Of a part beside the others: an API names no trace in MLflow when its worker has no MLflow to make one."""
    return env if part != "api" or find_spec("mlflow") else {**env, "OUTLAST_MLFLOW": "false"}


class Supervisor:
    """``tries``: how often a part may die before it has been ready once; None: as often as it does.

    ``one_stream``: what the parts would write to the standard error goes to the standard output."""

    def __init__(self, *, tries: int | None = None, one_stream: bool = False) -> None:
        self.servers: list[Postgres | Valkey] = []
        self.processes: list[Process] = []
        self._tries = tries
        self._one_stream = one_stream
        self._watching: asyncio.TaskGroup | None = None

    async def start_servers(self, *servers: Postgres | Valkey) -> None:
        """All at once. Raises EmbeddedError when each has started or failed."""
        self.servers += servers
        outcomes = await asyncio.gather(*(asyncio.to_thread(s.start) for s in servers), return_exceptions=True)
        for outcome in outcomes:
            if outcome is not None:
                raise outcome

    @asynccontextmanager
    async def watching(self) -> AsyncGenerator[None]:
        """Parts may be started in it, which are watched until it ends, like the servers. Raises CannotStart."""
        try:
            async with asyncio.TaskGroup() as group:
                self._watching = group
                group.create_task(self._watch_servers())
                yield
        except BaseExceptionGroup as several:
            raise several.exceptions[0] from None

    def start(self, part: str, *arguments: str, env: Mapping[str, str]) -> Process:
        assert self._watching is not None, "parts are started while they are watched"
        command = [sys.executable, "-m", "outlast.infra.cli", part, *arguments]
        process = Process(part, command, environment(part, env), one_stream=self._one_stream)
        self.processes.append(process)
        self._watching.create_task(process.keep_running(tries=self._tries))
        return process

    async def api_ready(self, api: Process, host: str, port: int) -> None:
        while not await asyncio.to_thread(api_answers, host, port):  # noqa: ASYNC110 — another process: no event
            await asyncio.sleep(0.05)
        api.mark_ready()

    async def _watch_servers(self) -> None:
        """A server that died is named and started again; its data is kept and the parts reconnect."""
        while True:
            await asyncio.sleep(_LOOK_SECONDS)
            for server in self.servers:
                if (code := server.poll()) is not None:
                    echo(f"{type(server).__name__.lower()} died (exit {code}); starting it again")
                    await asyncio.to_thread(server.stop)
                    await asyncio.to_thread(server.start)

    def hurry(self) -> None:
        for process in self.processes:
            process.hurry()

    async def stop_servers(self) -> None:
        await asyncio.gather(*(asyncio.to_thread(server.stop) for server in self.servers))
