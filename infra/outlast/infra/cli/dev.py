"""``outlast dev``: everything on one machine, started in order, watched, and stopped together."""

from __future__ import annotations

import asyncio
import importlib
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path

from outlast.agent import AgentError
from outlast.infra.embedded import EmbeddedError, Postgres, Valkey
from outlast.infra.migrate import migrate, shipped
from outlast.shared import logs, settings
from outlast.shared.connections import Database, fixed
from outlast.shared.settings import SettingsError

from .parts import prepare_checkpoints
from .process import Process, api_answers
from .supervised import API_KEY, RunningDev, forget_running, note_running

_HOST = "127.0.0.1"
_EXAMPLE = "examples.assistant"
_READY_SECONDS = 60.0
_LOOK_SECONDS = 0.5


def run(*, port: int, hello: bool) -> int:
    """Returns the exit code: 0 after Ctrl-C or SIGTERM. Raises SettingsError for what keeps it from starting."""
    _refuse_taken(port)
    try:
        return asyncio.run(Dev(port, hello=hello).run())
    except EmbeddedError as error:
        raise SettingsError(str(error)) from None


class Dev:
    def __init__(self, port: int, *, hello: bool) -> None:
        self._settings = settings.load()
        self._port = port
        self._hello = hello
        self._began = time.monotonic()
        self._stopping = asyncio.Event()
        self._servers: list[Postgres | Valkey] = []
        self._processes: list[Process] = []
        self._env = dict(os.environ)
        self._model = ""

    @property
    def url(self) -> str:
        return f"http://{_HOST}:{self._port}"

    async def run(self) -> int:
        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, self._stopping.set)
        logs.configure(self._settings, part="dev")
        working = asyncio.create_task(self._start_and_watch())
        stopping = asyncio.create_task(self._stopping.wait())
        try:
            await asyncio.wait({working, stopping}, return_when=asyncio.FIRST_COMPLETED)
            if working.done():
                working.result()
        finally:
            working.cancel()
            with suppress(asyncio.CancelledError):
                await working
            await self._stop()
        return 0

    # -- starting ------------------------------------------------------------------------------------------------------

    async def _start_and_watch(self) -> None:
        self._choose_agents()
        await self._start_servers()
        database = Database(
            fixed(self._env["DATABASE_URL"]), schema=self._settings.db_schema, application="outlast dev"
        )
        applied = await migrate(database, shipped())
        self._tell_schema(len(applied))
        watching = [asyncio.create_task(self._watch_servers())]
        try:
            api = self._start(watching, "api", "--port", str(self._port))
            await prepare_checkpoints(database)
            worker = self._start(watching, "worker")  # once it runs, somebody's graph may need the checkpoints' tables
            await asyncio.wait_for(self._ready(api, worker), _READY_SECONDS)
            self._note()
            await self._greet()
            self._tell_what_next(worker)
            await asyncio.gather(*watching)
        finally:
            for task in watching:
                task.cancel()

    def _choose_agents(self) -> None:
        if self._settings.agents:
            self._agent = ", ".join(f"{name} = {target}" for name, target in self._settings.agents.items())
            return
        sys.path.insert(0, os.getcwd())
        if find_spec("examples") is None or find_spec(_EXAMPLE) is None:
            raise SettingsError("OUTLAST_AGENTS is not set: name=module:attribute, importable from this folder")
        self._model = _model_of_example()
        self._agent = f"assistant = {_EXAMPLE}:agent"
        self._env["OUTLAST_AGENTS"] = f"assistant={_EXAMPLE}:agent"

    async def _start_servers(self) -> None:
        """Our own Postgres and Valkey, each only where the settings do not name another."""
        starting: list[asyncio.Future[None]] = []
        folder = Path(self._settings.data_dir)
        told: list[str] = []
        if self._settings.database_url is None:
            postgres = Postgres(folder / "postgres")
            self._servers.append(postgres)
            starting.append(asyncio.ensure_future(asyncio.to_thread(postgres.start)))
        if self._settings.redis_url is None:
            valkey = Valkey(folder / "valkey")
            self._servers.append(valkey)
            starting.append(asyncio.ensure_future(asyncio.to_thread(valkey.start)))
        outcomes = await asyncio.gather(*starting, return_exceptions=True)  # all have ended before any failure is told
        for outcome in outcomes:
            if outcome is not None:
                raise outcome
        for server in self._servers:
            name = type(server).__name__.lower()
            told.append(f"{name:<9} {server.version} in {_relative(server.folder)} (kept between starts)")
            self._env["DATABASE_URL" if isinstance(server, Postgres) else "REDIS_URL"] = server.url
        if self._settings.database_url is not None:
            self._env["DATABASE_URL"] = self._settings.required_database_url()
            told.insert(0, "postgres  from DATABASE_URL")
        if self._settings.redis_url is not None:
            self._env["REDIS_URL"] = self._settings.required_redis_url()
            told.append("valkey    from REDIS_URL")
        _say("        ".join(told) if sum(map(len, told)) < 110 else "\n".join(told))

    def _start(self, watching: list[asyncio.Task[None]], part: str, *arguments: str) -> Process:
        env = {**self._env}
        if "log_level" not in self._settings.model_fields_set:
            env["OUTLAST_LOG_LEVEL"] = "warning"  # a person watches: no line for every run
        if "drain_seconds" not in self._settings.model_fields_set:
            env["OUTLAST_DRAIN_SECONDS"] = "0"  # nor waits for runs that the next start continues anyway
        if "children" not in self._settings.model_fields_set:
            env["OUTLAST_CHILDREN"] = "2"  # one that is killed leaves another, and a start stays quick on many cores
        process = Process(part, [sys.executable, "-m", "outlast.infra.cli", part, *arguments], env)
        self._processes.append(process)
        watching.append(asyncio.create_task(process.keep_running()))
        return process

    async def _ready(self, api: Process, worker: Process) -> None:
        worker_ready = asyncio.create_task(worker.ready.wait())
        while not await asyncio.to_thread(api_answers, _HOST, self._port):  # noqa: ASYNC110 — another process: no event
            await asyncio.sleep(0.05)
        _say(f"ready     {self.url}   ({self._elapsed():.1f} s)", end="", flush=True)
        await worker_ready
        _say(f"    worker ready ({self._elapsed():.1f} s)")

    async def _greet(self) -> None:
        """Ask one question. Not with a key made for it: each start would leave one, and a run that nobody may read."""
        if not self._hello:
            return
        if self._settings.auth == "api_keys" and API_KEY not in os.environ:
            _say(f"hello     skipped, OUTLAST_AUTH=api_keys: export {API_KEY}=$({_command()} keys create me)")
        else:
            await _in_daemon_thread(lambda: _say_hello(self.url))

    # -- while it runs -------------------------------------------------------------------------------------------------

    async def _watch_servers(self) -> None:
        """A server that died is named and started again; its data is kept and the parts reconnect."""
        while True:
            await asyncio.sleep(_LOOK_SECONDS)
            for server in self._servers:
                if (code := server.poll()) is not None:
                    _say(f"{type(server).__name__.lower()} died (exit {code}); starting it again")
                    await asyncio.to_thread(server.stop)
                    await asyncio.to_thread(server.start)

    def _note(self) -> None:
        embedded: dict[type, str] = {type(server): server.url for server in self._servers}
        note_running(self._settings, RunningDev(os.getpid(), self.url, embedded.get(Postgres), embedded.get(Valkey)))

    async def _stop(self) -> None:
        forget_running(self._settings)
        await asyncio.gather(*(process.stop() for process in self._processes))
        await asyncio.gather(*(asyncio.to_thread(server.stop) for server in self._servers))
        _say("stopped")

    # -- what it says --------------------------------------------------------------------------------------------------

    def _elapsed(self) -> float:
        return time.monotonic() - self._began

    def _tell_schema(self, applied: int) -> None:
        state = f"{applied} migration{'s' if applied != 1 else ''} applied" if applied else "current"
        _say(f"schema    {state:<55}agent   {self._agent}")
        if self._model:
            _say(f"model     {self._model}")

    def _tell_what_next(self, worker: Process) -> None:
        _say(f"  open      {self.url}                   break it  kill -9 {worker.pid} (worker) while it answers")
        _say(f'  ask       {_command()} ask "…"        stop      Ctrl-C (data stays)')


def _model_of_example() -> str:
    """Which model it uses. Raises SettingsError, before anything starts, when the environment asks wrongly."""
    try:
        return importlib.import_module(_EXAMPLE).describe()
    except AgentError as error:
        raise SettingsError(error.message) from None


def _command() -> str:
    """This command as a person would call it again."""
    return _relative(Path(sys.argv[0])) if Path(sys.argv[0]).name == "outlast" else "outlast"


def _refuse_taken(port: int) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((_HOST, port))
        except OSError:
            raise SettingsError(f"{port} is in use: PORT={port + 1} make run") from None


async def _in_daemon_thread(work: Callable[[], None]) -> None:
    """Blocking work that nobody waits for when this process ends: an answer may take minutes."""
    loop, done = asyncio.get_running_loop(), asyncio.Event()

    def run() -> None:
        try:
            work()
        finally:
            with suppress(RuntimeError):  # the loop has ended
                loop.call_soon_threadsafe(done.set)

    threading.Thread(target=run, daemon=True).start()
    await done.wait()


def _say_hello(url: str) -> None:
    importlib.import_module("outlast.infra.cli.hello").say_hello(url)  # its HTTP client is not needed before


def _relative(path: Path) -> str:
    try:
        return str(path.absolute().relative_to(Path.cwd()))
    except ValueError:
        return str(path)


def _say(text: str, *, end: str = "\n", flush: bool = True) -> None:
    print(text, end=end, flush=flush)
