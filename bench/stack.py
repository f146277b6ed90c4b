"""The machine under test: a private Postgres that really writes, a private Valkey, API processes, a worker."""

from __future__ import annotations

import asyncio
import os
import sys
import tempfile
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from bench.http import Connection
from outlast.infra import checkpoint_tables
from outlast.infra.embedded import Postgres, Valkey
from outlast.infra.migrate import migrate, shipped
from outlast.shared.connections import Database, fixed

ROOT = Path(__file__).parents[1]
PORTS = (8971, 8972)
"""Of the two API processes that most cases use."""
CONNECTIONS = 32
_PATIENCE_SECONDS = 60
_BARE_SECONDS = 3
_BARE_TABLE = "CREATE TABLE IF NOT EXISTS public.bare (id bigserial PRIMARY KEY, data text)"
_BARE_INSERT = f"INSERT INTO public.bare (data) VALUES ('{'x' * 1000}');\n"


class Stack:
    def __init__(self, postgres: Postgres, valkey: Valkey, folder: Path) -> None:
        self.postgres = postgres
        self.valkey = valkey
        self.folder = folder
        self.database = Database(fixed(postgres.url), schema="outlast", application="bench")
        self._env = {
            **os.environ,
            "DATABASE_URL": postgres.url,
            "REDIS_URL": valkey.url,
            "OUTLAST_AGENTS": ",".join(f"{name}=bench.agents:{name}" for name in ("burst", "tick", "sleep")),
            "OUTLAST_LOG_LEVEL": "warning",
            "OUTLAST_CONCURRENCY": "1000",
            "OUTLAST_DRAIN_SECONDS": "0",
        }

    async def bare_rate(self) -> float:
        """Single-row commits of 1 KB a second, by 32 connections of pgbench: what Postgres and the disk allow now."""
        await self.execute(_BARE_TABLE)
        script = self.folder / "bare.sql"
        script.write_text(_BARE_INSERT)
        said = await self._output(
            str(self.postgres.binaries.folder / "pgbench"), "--no-vacuum", "--protocol=prepared", "--jobs=1",
            f"--client={CONNECTIONS}", f"--time={_BARE_SECONDS}", f"--file={script}", self.postgres.url,
        )  # fmt: skip
        await self.execute("TRUNCATE public.bare")
        return float(next(line.split()[2] for line in said.splitlines() if line.startswith("tps = ")))

    async def execute(self, statement: str) -> None:
        async with await self.database.connect(statement_timeout="0", lock_timeout="0") as connection:
            await connection.execute(statement.encode())

    async def number(self, query: str) -> float:
        """The one value of a query."""
        async with await self.database.connect() as connection:
            row = await (await connection.execute(query.encode())).fetchone()
            return float(row[0]) if row and row[0] is not None else 0.0

    async def until_number(self, query: str, wanted: float) -> None:
        await until(lambda: self.number(query), lambda number: number == wanted)

    async def until_idle(self) -> None:
        """Until no run is queued or in progress."""
        await self.until_number("SELECT count(*) FROM runs WHERE status IN ('queued', 'in_progress')", 0)

    async def forget_runs(self) -> None:
        """For the next case to begin with empty tables. No worker may be at work."""
        await self.execute("TRUNCATE threads CASCADE")

    @asynccontextmanager
    async def api(self, port: int, **env: str) -> AsyncGenerator[int]:
        """An API process; gives its process id when it answers."""
        command = (sys.executable, "-m", "outlast.infra.cli", "api", "--port", str(port))
        async with self.process(*command, env=env) as process:
            await until_answers(port, "/ready")
            if process.returncode is not None:
                raise RuntimeError(f"port {port} is another's")
            yield process.pid

    @asynccontextmanager
    async def apis(self) -> AsyncGenerator[None]:
        async with self.api(PORTS[0]), self.api(PORTS[1]):
            yield

    @asynccontextmanager
    async def worker(self, **env: str) -> AsyncGenerator[int]:
        """A worker with as many children as there are cores; gives the parent's process id when it takes runs."""
        read, write = os.pipe()
        command = (sys.executable, "-m", "outlast.infra.cli", "worker")
        async with self.process(
            *command, env={"OUTLAST_DEV_READY_FD": str(write), **env}, pass_fds=(write,)
        ) as process:
            os.close(write)
            try:
                await asyncio.wait_for(asyncio.to_thread(os.read, read, 1), _PATIENCE_SECONDS)
            finally:
                os.close(read)
            yield process.pid
        await self.forget_runs()

    @asynccontextmanager
    async def process(
        self, *command: str, env: Mapping[str, str] | None = None, **options: Any
    ) -> AsyncGenerator[asyncio.subprocess.Process]:
        """Any command, in the environment of the parts; ended at the end."""
        process = await asyncio.create_subprocess_exec(*command, env={**self._env, **(env or {})}, cwd=ROOT, **options)
        try:
            yield process
        finally:
            if process.returncode is None:
                process.terminate()
            await process.wait()

    async def _output(self, *command: str) -> str:
        process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
        said, _ = await process.communicate()
        if process.returncode != 0:
            raise RuntimeError(f"{command[0]} failed")
        return said.decode()


@asynccontextmanager
async def running_stack() -> AsyncGenerator[Stack]:
    with tempfile.TemporaryDirectory(prefix="outlast-bench-") as name:
        folder = Path(name)
        postgres, valkey = Postgres(folder / "postgres"), Valkey(folder / "valkey")
        postgres.start()
        try:
            valkey.start()
            stack = Stack(postgres, valkey, folder)
            await migrate(stack.database, shipped())
            await checkpoint_tables.prepare(stack.database)
            yield stack
        finally:
            valkey.stop()
            postgres.stop()


async def until_answers(port: int, path: str) -> None:
    """Until a GET of this path is answered with 200."""

    async def status() -> float:
        try:
            async with Connection.open(port) as connection:
                return (await connection.get(path))[0]
        except OSError:
            return 0

    await until(status, lambda code: code == 200)


async def until(look: Callable[[], Awaitable[float]], enough: Callable[[float], bool]) -> None:
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while not enough(await look()):
        if time.monotonic() > deadline:
            raise TimeoutError("it did not get there within a minute")
        await asyncio.sleep(0.05)
