"""(k) What a run leaves on disk, table by table."""

from __future__ import annotations

import asyncio
from typing import Any

from bench import graphs, load
from bench.figures import Figure
from bench.processes import in_own_process
from bench.stack import PORTS, Stack

HELLOS = 1000
GRAPHS = 100
_CHECKPOINTS = ("checkpoints", "checkpoint_blobs", "checkpoint_writes")
_TABLES = ("runs", "threads", "run_heads", "run_leases", "run_events", "run_saves", *_CHECKPOINTS)


async def fill(stack: Stack) -> list[Figure]:
    """Short runs of a function agent, then runs of a graph of 20 steps; how the tables grow, after a vacuum."""
    env = {
        "OUTLAST_AGENTS": "burst=bench.agents:burst,steps=bench.graphs:graph",
        graphs.LEDGER: str(stack.folder / "ledger"),
        graphs.PACE: "0",
    }
    figures: list[Figure] = []
    async with stack.api(PORTS[0], **env), stack.worker(**env):
        for what, agent, count in (("hello", "burst", HELLOS), ("graph", "steps", GRAPHS)):
            before = await _sizes(stack)
            text = "3" if agent == "burst" else "go"
            await in_own_process(load.submit, PORTS[0], [load.request(agent, text)] * count)
            await stack.until_idle()
            await _until_compacted(stack)
            figures += await _figures(stack, what, agent, before, count)
    await stack.execute(f"TRUNCATE {', '.join(_CHECKPOINTS)}")
    return figures


async def _figures(stack: Stack, what: str, agent: str, before: dict[str, float], count: int) -> list[Figure]:
    grown = {name: (size - before[name]) / count for name, size in (await _sizes(stack)).items()}
    events = await stack.number(
        f"SELECT avg(last_seq + 1) FROM run_heads JOIN runs ON id = run_id WHERE agent = '{agent}'"
    )
    parts: list[tuple[str, Any]] = [
        ("runs", grown["runs"]),
        ("heads and leases", grown["run_heads"] + grown["run_leases"]),
        ("events", grown["run_events"]),
        ("threads and saves", grown["threads"] + grown["run_saves"]),
        ("checkpoints", sum(grown[table] for table in _CHECKPOINTS)),
        ("indexes of ours", sum(grown[f"{table} indexes"] for table in _TABLES if table not in _CHECKPOINTS)),
        ("indexes of checkpoints", sum(grown[f"{table} indexes"] for table in _CHECKPOINTS)),
        ("together", sum(grown.values())),
    ]
    return [
        Figure(f"{what} run, events of each", events, ""),
        *(Figure(f"{what} run, {name}", size, "B") for name, size in parts),
    ]


async def _until_compacted(stack: Stack) -> None:
    """Until the number of rows has stayed the same for a second."""
    rows, now = -1.0, await stack.number("SELECT count(*) FROM run_events")
    while rows != now:
        await asyncio.sleep(1)
        rows, now = now, await stack.number("SELECT count(*) FROM run_events")


async def _sizes(stack: Stack) -> dict[str, float]:
    """Bytes of each table (with what it stores beside it), and of its indexes."""
    sizes: dict[str, float] = {}
    for table in _TABLES:
        await stack.execute(f"VACUUM {table}")
        sizes[table] = await stack.number(f"SELECT pg_table_size('outlast.{table}')")
        sizes[f"{table} indexes"] = await stack.number(f"SELECT pg_indexes_size('outlast.{table}')")
    return sizes
