"""procrastinate, a Postgres queue with LISTEN and NOTIFY. It has no streams: events are rows, read by polling."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import procrastinate

from bench.peers.http import EVENTS, WORD, serve

CONCURRENCY = 20
POLL_SECONDS = 0.01
connector = procrastinate.PsycopgConnector(conninfo=os.environ["DATABASE_URL"], min_size=4, max_size=20)
app = procrastinate.App(connector=connector)


@app.task(name="work")
async def work(work: str, body: dict[str, Any]) -> None:
    for number in range(EVENTS):
        await connector.execute_query_async(
            "INSERT INTO work_events (work, number, data) VALUES (%(work)s, %(number)s, %(data)s)",
            work=work, number=number, data=WORD,
        )  # fmt: skip


async def accept(body: Mapping[str, Any]) -> str:
    name = os.urandom(16).hex()
    await work.defer_async(work=name, body=dict(body))
    return name


async def follow(name: str) -> AsyncIterator[str]:
    number = 0
    while number < EVENTS:
        rows = await connector.execute_query_all_async(
            "SELECT data FROM work_events WHERE work = %(work)s AND number >= %(number)s ORDER BY number",
            work=name, number=number,
        )  # fmt: skip
        for row in rows:
            yield row["data"]
        number += len(rows)
        if not rows:
            await asyncio.sleep(POLL_SECONDS)


async def done() -> int:
    row = await connector.execute_query_one_async(
        "SELECT count(*) AS count FROM procrastinate_jobs WHERE status = 'succeeded'"
    )
    return row["count"]


@asynccontextmanager
async def lifespan(_: object):
    async with app.open_async():
        yield


async def migrate() -> None:
    async with app.open_async():
        await app.schema_manager.apply_schema_async()
        await connector.execute_query_async(
            "CREATE TABLE work_events (work text, number int, data text, PRIMARY KEY (work, number))"
        )


async def run_worker() -> None:
    async with app.open_async():
        await app.run_worker_async(concurrency=CONCURRENCY, delete_jobs="never")


if __name__ == "__main__":
    match sys.argv[1]:
        case "api":
            serve(accept, follow, done, lifespan=lifespan)
        case "worker":
            asyncio.run(run_worker())
        case _:
            asyncio.run(migrate())
