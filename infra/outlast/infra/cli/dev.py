"""``outlast dev``: everything on one machine, started in order, watched, and stopped together."""

from __future__ import annotations

import asyncio
import importlib
import os
import socket
import sys
import threading
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path

from outlast.agent import AgentError
from outlast.infra.embedded import EmbeddedError, Postgres, Valkey
from outlast.infra.embedded.locks import FileLock
from outlast.infra.migrate import migrate, shipped
from outlast.shared import logs, settings
from outlast.shared.connections import Database
from outlast.shared.lakebase import target_of
from outlast.shared.settings import Settings, SettingsError

from .parts import prepare_checkpoints
from .process import Process
from .supervised import API_KEY, RunningDev, forget_running, note_running, running_dev
from .supervisor import Supervisor, until_asked_to_stop
from .terminal import echo

_HOST = "127.0.0.1"
_GRAPHS = "langgraph.json"
_EXAMPLE = "examples.assistant"
_TRIES = 3  # of a part that dies without a word
_TELL_SECONDS = 10.0


def run(*, port: int, hello: bool | None) -> int:
    """Returns the exit code: 0 after Ctrl-C or SIGTERM. Raises SettingsError for what keeps it from starting.

    ``hello``: whether to ask a question at the start; None: only the example, for a question may make an agent act.
    """
    _refuse_taken(port)
    config = settings.load()
    dev = Dev(config, port, hello=hello)
    dev.choose_agents()
    with _holding_folder(config):
        forget_running(config)  # whatever was noted there has ended without a word
        try:
            return asyncio.run(dev.run())
        except EmbeddedError as error:
            raise SettingsError(str(error)) from None


class Dev:
    def __init__(self, config: Settings, port: int, *, hello: bool | None) -> None:
        self._settings = config
        self._port = port
        self._hello = hello
        self._began = time.monotonic()
        self._supervisor = Supervisor(tries=_TRIES)
        self._env = dict(os.environ)
        self._model = ""
        self._is_example = False

    @property
    def url(self) -> str:
        return f"http://{_HOST}:{self._port}"

    async def run(self) -> int:
        logs.configure(self._settings, part="dev")
        try:
            await until_asked_to_stop(self._start_and_watch(), asked_again=self._supervisor.hurry)
        finally:
            await self._stop()
        return 0

    # -- starting ------------------------------------------------------------------------------------------------------

    async def _start_and_watch(self) -> None:
        await self._start_servers()
        embedded = {"database_url": self._env["DATABASE_URL"]} if "DATABASE_URL" in self._env else {}
        database = Database.of(settings.load(**embedded), application="outlast dev")
        applied = await migrate(database, shipped())
        self._tell_schema(len(applied))
        async with self._supervisor.watching():
            api = self._start("api", "--port", str(self._port))
            await prepare_checkpoints(database)
            worker = self._start("worker")  # once it runs, somebody's graph may need the checkpoints' tables
            await self._ready(api, worker)
            self._note()
            await self._greet()
            self._tell_what_next(worker)

    def choose_agents(self) -> None:
        """Decide which agents are served, before anything is made. Raises SettingsError."""
        agents = self._settings.agents
        if not agents and Path(_GRAPHS).is_file():  # a project of LangGraph's users
            self._env["OUTLAST_AGENTS"] = _GRAPHS
            agents = settings.load(agents=_GRAPHS).agents
        if agents:
            self._agent = ", ".join(f"{name} = {target}" for name, target in agents.items())
            return
        sys.path.insert(0, os.getcwd())
        if find_spec("examples") is None or find_spec(_EXAMPLE) is None:
            raise SettingsError("OUTLAST_AGENTS is not set: name=module:attribute, importable from this folder")
        self._is_example, self._model = True, _model_of_example()
        self._agent = f"assistant = {_EXAMPLE}:agent"
        self._env["OUTLAST_AGENTS"] = f"assistant={_EXAMPLE}:agent"

    async def _start_servers(self) -> None:
        """Our own Postgres and Valkey, each only where the settings do not name another."""
        folder, servers = Path(self._settings.data_dir), list[Postgres | Valkey]()
        told: list[str] = []
        if not self._settings.names_database:
            servers.append(Postgres(folder / "postgres"))
        if self._settings.redis_url is None:
            servers.append(Valkey(folder / "valkey"))
        await self._supervisor.start_servers(*servers)
        for server in servers:
            name = type(server).__name__.lower()
            told.append(f"{name:<9} {server.version} in {_relative(server.folder)} (kept between starts)")
            self._env["DATABASE_URL" if isinstance(server, Postgres) else "REDIS_URL"] = server.url
        if self._settings.database_url is not None:
            self._env["DATABASE_URL"] = self._settings.required_database_url()
            told.insert(0, "postgres  from DATABASE_URL")
        elif self._settings.names_database:
            told.insert(0, f"postgres  {target_of(self._settings)}")
        if self._settings.redis_url is not None:
            self._env["REDIS_URL"] = self._settings.required_redis_url()
            told.append("valkey    from REDIS_URL")
        echo("        ".join(told) if sum(map(len, told)) < 110 else "\n".join(told))

    def _start(self, part: str, *arguments: str) -> Process:
        env = {**self._env}
        if "log_level" not in self._settings.model_fields_set:
            env["OUTLAST_LOG_LEVEL"] = "warning"  # a person watches: no line for every run
        if "drain_seconds" not in self._settings.model_fields_set:
            env["OUTLAST_DRAIN_SECONDS"] = "0"  # nor waits for runs that the next start continues anyway
        if "children" not in self._settings.model_fields_set:
            env["OUTLAST_CHILDREN"] = "2"  # one that is killed leaves another, and a start stays quick on many cores
        return self._supervisor.start(part, *arguments, env=env)

    async def _ready(self, api: Process, worker: Process) -> None:
        await self._supervisor.api_ready(api, _HOST, self._port)
        echo(f"ready     {self.url}   ({self._elapsed():.1f} s)")
        while not await _within(_TELL_SECONDS, worker.ready):
            echo(f"          loading {self._agent} … {self._elapsed():.0f} s")
        echo(f"          worker ready ({self._elapsed():.1f} s)")

    async def _greet(self) -> None:
        """Ask one question. Not with a key made for it: each start would leave one, and a run that nobody may read."""
        if not (self._is_example if self._hello is None else self._hello):
            return
        if self._settings.auth == "api_keys" and API_KEY not in os.environ:
            echo(f"hello     skipped, OUTLAST_AUTH=api_keys: export {API_KEY}=$({_command()} keys create me)")
        elif self._settings.auth == "databricks":
            echo("hello     skipped, OUTLAST_AUTH=databricks: here you are the proxy, and send X-Forwarded-User")
        else:
            await _in_daemon_thread(lambda: _say_hello(self.url))

    # -- while it runs -------------------------------------------------------------------------------------------------

    def _note(self) -> None:
        embedded: dict[type, str] = {type(server): server.url for server in self._supervisor.servers}
        note_running(self._settings, RunningDev(os.getpid(), self.url, embedded.get(Postgres), embedded.get(Valkey)))

    async def _stop(self) -> None:
        forget_running(self._settings)
        await asyncio.gather(*(process.stop() for process in self._supervisor.processes))
        await self._supervisor.stop_servers()
        echo("stopped")

    # -- what it says --------------------------------------------------------------------------------------------------

    def _elapsed(self) -> float:
        return time.monotonic() - self._began

    def _tell_schema(self, applied: int) -> None:
        state = f"{applied} migration{'s' if applied != 1 else ''} applied" if applied else "current"
        echo(f"schema    {state:<55}agent   {self._agent}")
        if self._model:
            echo(f"model     {self._model}")

    def _tell_what_next(self, worker: Process) -> None:
        echo(f"  open      {self.url}                   break it  kill -9 {worker.pid} (worker) while it answers")
        echo(f'  ask       {_command()} ask "…"        stop      Ctrl-C (data stays)')


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


async def _within(seconds: float, event: asyncio.Event) -> bool:
    """Whether it happens within so long."""
    with suppress(TimeoutError):
        await asyncio.wait_for(event.wait(), seconds)
    return event.is_set()


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


@contextmanager
def _holding_folder(config: Settings) -> Generator[None]:
    """Be the only `outlast dev` of its data folder, which is made. Raises SettingsError."""
    folder = Path(config.data_dir).absolute()
    lock = FileLock(folder / "dev.lock")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        held = lock.try_acquire()
    except OSError as error:
        raise SettingsError(f"{folder} cannot be used: {error.strerror}. OUTLAST_DATA_DIR names another") from None
    if not held:
        running = running_dev(config)
        where = f"`outlast dev` at {running.url}" if running else "another `outlast dev`"
        raise SettingsError(
            f"{folder} is in use by process {lock.read_note()}, {where}: end that first, "
            "or start this one with another folder (OUTLAST_DATA_DIR)"
        )
    lock.write_note(str(os.getpid()))
    try:
        yield
    finally:
        lock.release()


def _relative(path: Path) -> str:
    try:
        return str(path.absolute().relative_to(Path.cwd()))
    except ValueError:
        return str(path)
