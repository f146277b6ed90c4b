"""Plain Celery on Redis, where nothing is durable: events in a Redis stream of each run, a counter of what is done."""

from __future__ import annotations

import os
import sys
from collections.abc import AsyncIterator, Mapping
from typing import Any

import celery
import redis
import redis.asyncio
from starlette.concurrency import run_in_threadpool

from bench.peers.http import EVENTS, WORD, serve

URL = os.environ["REDIS_URL"]
app = celery.Celery("work", broker=os.environ["BROKER_URL"])
app.conf.update(task_ignore_result=True, worker_prefetch_multiplier=4, broker_pool_limit=32)
connection = redis.Redis.from_url(URL)


@app.task(name="work", ignore_result=True)
def work(name: str, body: dict[str, Any]) -> None:
    for _ in range(EVENTS):
        connection.xadd(f"events:{name}", {"data": WORD})
    connection.incr("work:done")


def serve_api() -> None:
    reading = redis.asyncio.Redis.from_url(URL)

    async def accept(body: Mapping[str, Any]) -> str:
        name = os.urandom(16).hex()
        await run_in_threadpool(work.apply_async, (name, dict(body)))
        return name

    async def follow(name: str) -> AsyncIterator[str]:
        last, count = "0", 0
        while count < EVENTS:
            for _, entries in await reading.xread({f"events:{name}": last}, block=1000):
                for last, fields in entries:  # noqa: B007 — the last one is where to go on
                    yield fields[b"data"].decode()
                count += len(entries)

    async def done() -> int:
        return int(await reading.get("work:done") or 0)

    serve(accept, follow, done)


if __name__ == "__main__":
    match sys.argv[1]:
        case "api":
            serve_api()
        case "worker":
            app.worker_main(["worker", "--pool=prefork", f"--concurrency={os.cpu_count()}", "--loglevel=ERROR",
                             "--without-gossip", "--without-mingle", "--without-heartbeat"])  # fmt: skip
        case _:
            pass
