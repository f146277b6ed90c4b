"""What is broken: a Postgres, a Valkey, API replicas and workers as processes, each behind a network of its own."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import httpx
import psycopg

from outlast.infra import checkpoint_tables
from outlast.infra.embedded import Postgres, Valkey
from outlast.infra.migrate import migrate, shipped
from outlast.shared.connections import Database, fixed
from tests.chaos import ledger, scenario, skew
from tests.support.processes import ROOT, START_SECONDS, Part, agent_processes, descendants, free_port, processes_of
from tests.support.proxy import Mode, Proxy
from tests.support.waiting import until

AGENTS = ",".join(f"{name}=tests.chaos.agents:{name}" for name in scenario.AGENTS)


@dataclass(frozen=True, slots=True)
class Size:
    """How much of a world there is, and how fast it lives."""

    apis: int = 2
    workers: int = 3
    children: int = 2
    concurrency: int = 25
    """Runs at once in one child: when a worker is lost the others are full, and take its runs all the same."""
    clients: int = 100
    lease_seconds: float = 6.0
    beat_seconds: float = 1.5
    sweep_seconds: float = 0.5
    pace_seconds: float = 0.35
    """The mean pause before each word."""
    skews: Sequence[float] = (0.0, 5.0, -5.0)
    """By how much the clocks of the workers' children are wrong."""


SMALL = Size(
    workers=2, children=1, clients=20, lease_seconds=2.0, beat_seconds=0.5, sweep_seconds=0.2, pace_seconds=0.06
)
"""For the test: it is over in less than a minute, beside others."""


class Member:
    """An API replica or a worker: started again whenever it ends, as a container platform would."""

    def __init__(self, name: str, arguments: list[str], env: Mapping[str, str], folder: Path, pause: float) -> None:
        self.name = name
        self.starts = 0
        self.ready = asyncio.Event()
        self._arguments = arguments
        self._env = env
        self._folder = folder
        self._pause = pause
        self._part: Part | None = None

    @property
    def pid(self) -> int | None:
        """None between its end and its next start."""
        if self._part is None or self._part.process.poll() is not None:
            return None
        return self._part.process.pid

    @property
    def is_worker(self) -> bool:
        return self._arguments[0] == "worker"

    @property
    def children(self) -> list[int]:
        """The processes in which it runs agents."""
        return self._look(agent_processes)

    @property
    def everything(self) -> list[int]:
        """All its processes, itself first."""
        return [pid for pid in (self.pid, *self._look(descendants)) if pid]

    @property
    def fork_servers(self) -> list[int]:
        return [pid for pid in self._look(descendants) if pid not in self.children and _is_fork_server(pid)]

    def _look(self, find: object) -> list[int]:
        with suppress(OSError):
            return find(self.pid) if self.pid else []  # type: ignore[operator]
        return []

    async def keep(self) -> None:
        """Run it, for ever."""
        while True:
            self._part = Part(self._arguments, self._env, self._folder / f"{self.name}.log", cwd=self._folder)
            self.starts += 1
            if self.is_worker:
                with suppress(AssertionError):  # it died before it was ready
                    await asyncio.to_thread(self._part.wait_ready)
            self.ready.set()
            await asyncio.to_thread(self._part.process.wait)
            self._part.close()
            await asyncio.sleep(self._pause)

    def end(self) -> None:
        if self._part is not None and self._part.process.poll() is None:
            self._part.kill()


def _is_fork_server(pid: int) -> bool:
    with suppress(OSError):
        return b"forkserver" in Path(f"/proc/{pid}/cmdline").read_bytes()
    return False


@dataclass
class World:
    size: Size
    folder: Path
    postgres: Postgres
    valkey: Valkey
    members: list[Member] = field(default_factory=list[Member])
    networks: dict[str, Proxy] = field(default_factory=dict[str, Proxy])
    """By what they connect: ``worker0 postgres``, ``api1 clients``."""
    stopped: set[int] = field(default_factory=set[int])
    """Processes that do not run at the moment."""

    @property
    def workers(self) -> list[Member]:
        return [member for member in self.members if member.is_worker]

    @property
    def apis(self) -> list[Member]:
        return [member for member in self.members if not member.is_worker]

    @property
    def is_whole(self) -> bool:
        """Whether every worker has all its children."""
        return all(len(worker.children) == self.size.children for worker in self.workers)

    @property
    def urls(self) -> list[str]:
        return [proxy.url for name, proxy in self.networks.items() if name.endswith("clients")]

    @property
    def ledger(self) -> Path:
        return self.folder / "ledger"

    @property
    def database_url(self) -> str:
        """For those who judge: not by way of any network that is broken."""
        return self.postgres.url

    async def admin(self, statement: str) -> list[tuple[object, ...]]:
        """Do something to Postgres itself."""
        connection = await psycopg.AsyncConnection.connect(self.database_url, autocommit=True)
        async with connection:
            cursor = await connection.execute(statement.encode())
            return await cursor.fetchall() if cursor.description else []

    async def heal(self) -> None:
        """Everything works again: processes run, networks pass, servers serve, logins are let in."""
        for pid in self.stopped:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)
        self.stopped.clear()
        for proxy in self.networks.values():
            proxy.delay_seconds = 0
            proxy.mode = Mode.PASS
        for server in (self.postgres, self.valkey):
            if server.poll() is not None:
                await asyncio.to_thread(server.start)
        await until(self._lets_all_parts_in, seconds=START_SECONDS)  # it may still recover from its last death

    async def _lets_all_parts_in(self) -> bool:
        with suppress(psycopg.OperationalError):
            for member in self.members:
                await self.admin(f"ALTER ROLE {member.name} LOGIN")
            return True
        return False

    def logs(self) -> dict[str, str]:
        """What the processes have logged, by their names."""
        return {file.stem: file.read_text(errors="replace") for file in sorted(self.folder.glob("parts/*.log"))}

    def said(self) -> str:
        """All of it."""
        return "".join(self.logs().values())


@asynccontextmanager
async def running(size: Size, folder: Path, **env: str) -> AsyncGenerator[World]:
    """A world in this folder. ``env`` is for its processes."""
    world = World(
        size,
        folder,
        # A process may die at any moment here, the machine does not: what was written is there.
        Postgres(folder / "postgres", settings={"fsync": "off", "max_connections": "300"}),
        Valkey(folder / "valkey"),
    )
    async with AsyncExitStack() as stack:
        for server in (world.postgres, world.valkey):
            await asyncio.to_thread(server.start)
            stack.push_async_callback(asyncio.to_thread, server.stop)
        await _prepare(world)
        _populate(world, stack, env)
        stack.callback(_end_processes, world)
        keepers = [asyncio.create_task(member.keep()) for member in world.members]
        stack.callback(lambda: [keeper.cancel() for keeper in keepers])
        for member in world.members:
            await asyncio.wait_for(member.ready.wait(), START_SECONDS)
        for url in world.urls:
            await until(lambda: _serves(url), seconds=START_SECONDS)
        yield world


async def _prepare(world: World) -> None:
    database = Database(fixed(world.database_url), schema="outlast", application="chaos")
    await migrate(database, shipped())
    await checkpoint_tables.prepare(database)
    (world.folder / "parts").mkdir()


def _populate(world: World, stack: AsyncExitStack, env: Mapping[str, str]) -> None:
    """Members, each with a role of its own in Postgres and with networks of its own."""
    size = world.size
    for number in range(size.apis):
        port = free_port()
        world.networks[f"api{number} clients"] = stack.enter_context(Proxy(f"http://127.0.0.1:{port}"))
        _add(world, stack, f"api{number}", ["api", "--port", str(port)], env)
    for number in range(size.workers):
        skewed = {skew.VARIABLE: str(size.skews[number % len(size.skews)])}
        _add(world, stack, f"worker{number}", ["worker"], {**skewed, **env})


def _add(world: World, stack: AsyncExitStack, name: str, arguments: list[str], env: Mapping[str, str]) -> None:
    with psycopg.connect(world.database_url, autocommit=True) as connection:
        connection.execute(f"CREATE ROLE {name} LOGIN SUPERUSER".encode())
    postgres = stack.enter_context(Proxy(_as_role(world.postgres.url, name)))
    valkey = stack.enter_context(Proxy(world.valkey.url))
    world.networks |= {f"{name} postgres": postgres, f"{name} valkey": valkey}
    environment = {
        "DATABASE_URL": postgres.url,
        "REDIS_URL": valkey.url,
        "PYTHONPATH": str(ROOT),
        ledger.VARIABLE: str(world.ledger),
        **_settings(world.size),
        **env,
    }
    world.members.append(Member(name, arguments, environment, world.folder / "parts", pause=0.2))


def _settings(size: Size) -> dict[str, str]:
    return {
        "OUTLAST_AGENTS": AGENTS,
        "OUTLAST_AUTH": "none",
        "OUTLAST_CHILDREN": str(size.children),
        "OUTLAST_CONCURRENCY": str(size.concurrency),
        "OUTLAST_LEASE_SECONDS": str(size.lease_seconds),
        "OUTLAST_BEAT_SECONDS": str(size.beat_seconds),
        "OUTLAST_SWEEP_SECONDS": str(size.sweep_seconds),
        "OUTLAST_DRAIN_SECONDS": "1",
        "OUTLAST_PING_SECONDS": "1",
        "OUTLAST_MAX_ATTEMPTS": "1000",  # here it is the process that is bad, not the run
        "OUTLAST_PRELOAD": "outlast.worker.agents.langgraph,tests.chaos.agents",
        "OUTLAST_LOG_FORMAT": "json",
        "OUTLAST_LOG_LEVEL": "warning",
        "CHAOS_PACE_SECONDS": str(size.pace_seconds),
    }


def _as_role(url: str, role: str) -> str:
    parts = urlsplit(url)
    return urlunsplit(parts._replace(netloc=f"{role}@"))


async def _serves(url: str) -> bool:
    try:
        async with httpx.AsyncClient() as http:
            return (await http.get(f"{url}/ready")).status_code == 200
    except httpx.TransportError:
        return False


def _end_processes(world: World) -> None:
    """All of them, also those whose parents were killed while they were stopped."""
    for member in world.members:
        member.end()
    for pid in processes_of(world.folder / "parts"):
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
