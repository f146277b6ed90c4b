"""``make bench``: what this machine does, each figure beside the bare Postgres INSERT rate of the same minute.

A private Postgres (fsync on) and Valkey, two API processes, one worker process, one load process: this one. Only
ratios within one run mean anything. Results are printed as a table and written to ``bench/out``.
"""

from __future__ import annotations

import asyncio
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from statistics import median, quantiles
from typing import Any

from bench.http import Connection
from outlast.infra.embedded import Postgres, Valkey
from outlast.infra.migrate import migrate, shipped
from outlast.shared.connections import Database, fixed

ROOT = Path(__file__).parents[1]
OUT = ROOT / "bench/out"
SECONDS = 5.0
CONCURRENCY = 32
PORTS = (8971, 8972)
AGENTS = "burst=bench.agents:burst,tick=bench.agents:tick"


async def main() -> None:
    with tempfile.TemporaryDirectory(prefix="outlast-bench-") as folder:
        postgres, valkey = Postgres(Path(folder) / "postgres"), Valkey(Path(folder) / "valkey")
        postgres.start()
        valkey.start()
        try:
            figures = await _measure(postgres.url, valkey.url)
        finally:
            valkey.stop()
            postgres.stop()
    _report(figures)


async def _measure(database_url: str, redis_url: str) -> dict[str, float]:
    database = Database(fixed(database_url), schema="outlast", application="bench")
    await migrate(database, shipped())
    env = {**os.environ, "DATABASE_URL": database_url, "REDIS_URL": redis_url, "OUTLAST_AGENTS": AGENTS}
    env |= {"OUTLAST_LOG_LEVEL": "warning", "OUTLAST_CONCURRENCY": "400"}
    figures: dict[str, float] = {"bare INSERT/s, 32 connections": await bare_inserts(database)}
    async with _part(env, "api", "--port", str(PORTS[0])), _part(env, "api", "--port", str(PORTS[1])):
        await _until_ready()
        figures |= await submits()
        async with _part(env, "worker"):
            await drained(database)
            figures |= await first_event()
            figures |= await stored_events(database)
            figures |= await latency()
    return figures


async def bare_inserts(database: Database) -> float:
    """Single-row commits a second of a table like the ones we write: what the disk and Postgres allow."""
    connections = [await database.connect() for _ in range(CONCURRENCY)]
    await connections[0].execute("CREATE TABLE IF NOT EXISTS bare (id bigserial PRIMARY KEY, data text)")
    ends = time.monotonic() + SECONDS

    async def insert(connection: Any) -> int:
        count = 0
        while time.monotonic() < ends:
            await connection.execute("INSERT INTO bare (data) VALUES (%s)", ("x" * 1000,), prepare=True)
            count += 1
        return count

    done = sum(await asyncio.gather(*map(insert, connections)))
    for connection in connections:
        await connection.close()
    return done / SECONDS


async def submits() -> dict[str, float]:
    """Background submissions of about 1 KB, without a worker: what an API process accepts."""
    body = json.dumps({"model": "burst", "input": "x" * 900, "background": True}).encode()
    ends = time.monotonic() + SECONDS
    times: list[float] = []

    async def submit() -> None:
        async with Connection.open(PORTS[0]) as connection:
            while time.monotonic() < ends:
                began = time.monotonic()
                status, _ = await connection.post("/responses", body)
                assert status == 200
                times.append(time.monotonic() - began)

    await asyncio.gather(*(submit() for _ in range(CONCURRENCY)))
    return {"submits/s, 32 clients": len(times) / SECONDS, **_percentiles("submit ms", times)}


async def first_event() -> dict[str, float]:
    """On an idle server: from the request to the first word, streamed from another API process."""
    times: list[float] = []
    body = json.dumps({"model": "burst", "input": "1", "background": True}).encode()
    async with Connection.open(PORTS[0]) as submitting:
        for _ in range(50):
            began = time.monotonic()
            _, answer = await submitting.post("/responses", body)
            async for event in _events(PORTS[1], json.loads(answer)["id"]):
                if event["type"] == "response.output_text.delta":
                    times.append(time.monotonic() - began)
                    break
    return _percentiles("submit to first word ms", times)


async def stored_events(database: Database) -> dict[str, float]:
    """Events a second that one worker stores, of 100 runs that emit as fast as they may."""
    body = json.dumps({"model": "burst", "input": "1000", "background": True}).encode()
    before, began = await _stored(database), time.monotonic()
    async with Connection.open(PORTS[0]) as connection:
        for _ in range(100):
            await connection.post("/responses", body)
    await drained(database)
    return {"stored events/s, 1 worker": (await _stored(database) - before) / (time.monotonic() - began)}


async def latency() -> dict[str, float]:
    """From an agent's word to a client of another API process: 100 runs, 20 words a second each."""
    body = json.dumps({"model": "tick", "input": "100", "background": True}).encode()
    times: list[float] = []

    async def view() -> None:
        async with Connection.open(PORTS[0]) as connection:
            _, answer = await connection.post("/responses", body)
        async for event in _events(PORTS[1], json.loads(answer)["id"]):
            if event["type"] == "response.output_text.delta":
                times.append(time.time() - float(event["delta"]))

    await asyncio.gather(*(view() for _ in range(100)))
    return _percentiles("word to client ms, 2,000 events/s", times)


async def _events(port: int, run: str) -> AsyncGenerator[dict[str, Any]]:
    async with Connection.open(port) as connection:
        async for line in connection.lines(f"/responses/{run}?stream=true"):
            if line.startswith(b"data: {"):
                yield json.loads(line[6:])


async def drained(database: Database) -> None:
    """Until no run is queued or in progress."""
    query = "SELECT count(*) FROM runs WHERE status IN ('queued', 'in_progress')"
    await _poll(lambda: _one(database, query), lambda left: left == 0)


async def _stored(database: Database) -> float:
    return await _one(database, "SELECT coalesce(sum(last_seq + 1), 0) FROM run_heads")


async def _one(database: Database, query: str) -> float:
    connection = await database.connect()
    async with connection:
        row = await (await connection.execute(query.encode())).fetchone()
        return float(row[0]) if row else 0.0


async def _until_ready() -> None:
    async def status(port: int) -> float:
        try:
            async with Connection.open(port) as connection:
                return (await connection.get("/ready"))[0]
        except OSError:
            return 0

    for port in PORTS:
        await _poll(lambda: status(port), lambda code: code == 200)


async def _poll(look: Callable[[], Awaitable[float]], enough: Callable[[float], bool]) -> None:
    deadline = time.monotonic() + 120
    while not enough(await look()):
        if time.monotonic() > deadline:
            raise TimeoutError("the service did not get there within two minutes")
        await asyncio.sleep(0.05)


@asynccontextmanager
async def _part(env: dict[str, str], *arguments: str) -> AsyncGenerator[None]:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "outlast.infra.cli", *arguments, env=env, cwd=ROOT
    )
    try:
        yield
    finally:
        process.terminate()
        await process.wait()


def _percentiles(name: str, seconds: list[float]) -> dict[str, float]:
    return {f"{name} p50": median(seconds) * 1000, f"{name} p99": quantiles(seconds, n=100)[98] * 1000}


def _report(figures: dict[str, float]) -> None:
    bare = figures["bare INSERT/s, 32 connections"]
    for name, value in figures.items():
        ratio = f"   {value / bare:.3f} of bare" if "/s," in name and value is not bare else ""
        print(f"{name:<48} {value:>10.1f}{ratio}")
    OUT.mkdir(exist_ok=True)
    command = ["git", "-C", str(ROOT), "rev-parse", "HEAD"]
    commit = subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()
    machine = f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}"
    at = datetime.now(UTC)
    result = {"at": at.isoformat(), "commit": commit, "machine": machine, "figures": figures}
    path = OUT / f"{at:%Y%m%dT%H%M%S}.json"
    path.write_text(json.dumps(result, indent=1))
    print(f"written to {path.relative_to(ROOT)}")


if __name__ == "__main__":
    asyncio.run(main())
