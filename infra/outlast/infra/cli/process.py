"""A part of `outlast dev`, `serve` or `demo`: a process that is started, watched and, if wanted, started again."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Mapping, Sequence
from contextlib import nullcontext, suppress
from http.client import HTTPConnection, HTTPException
from pathlib import Path

from outlast.shared.domain.errors import OutlastError

from .supervised import LONGEST_WORD, PARENT_FD, READY, READY_FD
from .terminal import echo

_STEADY_SECONDS = 10.0  # a part that lived so long is not in a crash loop
_PAUSE_SECONDS = (0.2, 1.0, 3.0, 10.0)
_STOP_SECONDS = 15.0


class CannotStart(OutlastError):
    """A part has said why it cannot start, or has died again and again and has never been ready."""


class Process:
    """``cwd`` and ``output`` are this process's own unless they are given; a file of output is added to.

    ``one_stream``: without such a file, both streams of output go to the standard output."""

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        env: Mapping[str, str],
        *,
        cwd: Path | None = None,
        output: Path | None = None,
        one_stream: bool = False,
    ) -> None:
        self.name = name
        self.ready = asyncio.Event()
        self.pid: int | None = None
        self._command = command
        self._env = env
        self._cwd = cwd
        self._output = output
        self._one_stream = one_stream
        self._was_ready = False
        self._refusal: str | None = None
        self._process: asyncio.subprocess.Process | None = None
        self._stopping = False

    async def keep_running(self, *, tries: int | None = None) -> None:
        """Start it, and again whenever it ends by itself, with growing pauses while it keeps dying.

        Raises CannotStart when it was never ready and says why it cannot start, or has ended ``tries`` times: what is
        wrong then is no accident. A part that was ready once is started again for ever."""
        loop = asyncio.get_running_loop()
        deaths, failures = 0, 0
        while not self._stopping:
            started = loop.time()
            code = await self.run()
            if self._stopping:
                return
            if self._refusal is not None and not self._was_ready:
                raise CannotStart(self._refusal)
            failures += 1
            if failures == tries and not self._was_ready:
                raise CannotStart(
                    f"{self.name} {how_it_ended(code)}, {tries} times, and was never ready; what it says above is why"
                )
            deaths = 0 if loop.time() - started > _STEADY_SECONDS else deaths + 1
            pause = _PAUSE_SECONDS[min(deaths, len(_PAUSE_SECONDS) - 1)]
            echo(f"{self.name} {how_it_ended(code)}; starting it again")
            await asyncio.sleep(pause)

    async def run(self) -> int:
        """One life of the process. Returns its exit code, negative for a signal."""
        parent_read, parent_write = os.pipe()  # never written to: it closes when this process ends, however it ends
        ready_read, ready_write = os.pipe()
        env = {**self._env, PARENT_FD: str(parent_read), READY_FD: str(ready_write)}
        try:
            with nullcontext() if self._output is None else self._output.open("ab") as output:
                self._process = await asyncio.create_subprocess_exec(
                    *self._command,
                    env=env,
                    cwd=self._cwd,
                    pass_fds=(parent_read, ready_write),
                    stdin=asyncio.subprocess.DEVNULL,
                    stdout=output,
                    stderr=asyncio.subprocess.STDOUT if self._one_stream and output is None else output,
                    start_new_session=True,  # Ctrl-C is ours to pass on, in order
                )
            self.pid = self._process.pid
        finally:
            os.close(parent_read)
            os.close(ready_write)
        os.set_blocking(ready_read, False)
        asyncio.get_running_loop().add_reader(ready_read, self._hear, ready_read)
        try:
            return await self._process.wait()
        finally:
            self._hear(ready_read)  # what it has said at its end
            asyncio.get_running_loop().remove_reader(ready_read)
            self.ready.clear()
            os.close(ready_read)
            os.close(parent_write)

    def _hear(self, fd: int) -> None:
        """Take its only word, if it has said it."""
        with suppress(BlockingIOError):
            word = os.read(fd, LONGEST_WORD)
            asyncio.get_running_loop().remove_reader(fd)
            if word == READY:
                self.mark_ready()
            elif word:
                self._refusal = word.decode(errors="replace")

    def mark_ready(self) -> None:
        """It serves: it says so itself, or somebody has seen it."""
        self._was_ready = True
        self.ready.set()

    async def stop(self, seconds: float = _STOP_SECONDS) -> None:
        """Ask it to end, and end it if it does not."""
        self._stopping = True
        process = self._process
        if process is None or process.returncode is not None:
            return
        process.send_signal(signal.SIGTERM)
        try:
            await asyncio.wait_for(process.wait(), seconds)
        except TimeoutError:
            process.kill()
            await process.wait()

    def hurry(self) -> None:
        """Ask it once more, if it is to end: parts let go of everything then."""
        if self._stopping and self._process is not None and self._process.returncode is None:
            self._process.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """SIGKILL to this process alone."""
        if self._process is not None:
            self._process.kill()

    def kill_group(self) -> None:
        """SIGKILL to this process and to all that it has started."""
        if self.pid is not None:
            with suppress(ProcessLookupError):
                os.killpg(self.pid, signal.SIGKILL)


def api_answers(host: str, port: int) -> bool:
    """Whether an API there is ready."""
    connection = HTTPConnection(host, port, timeout=2)
    try:
        connection.request("GET", "/ready")
        return connection.getresponse().status == 200
    except (OSError, HTTPException):
        return False
    finally:
        connection.close()


def how_it_ended(code: int) -> str:
    if code >= 0:
        return f"ended with exit code {code}"
    try:
        return f"was killed by {signal.Signals(-code).name}"
    except ValueError:
        return f"was killed by signal {-code}"
