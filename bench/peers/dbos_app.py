"""DBOS: durable workflows in Postgres. The API process enqueues with DBOSClient, another process executes."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import AsyncIterator, Mapping
from typing import Any

from dbos import DBOS, DBOSClient

from bench.peers.http import EVENTS, WORD, serve

POLL_SECONDS = 0.01
WORKER_CONCURRENCY = 100
URL = os.environ["DATABASE_URL"].replace("postgresql://", "postgresql+psycopg://")


@DBOS.step()
async def write_all() -> None:
    for _ in range(EVENTS):
        await DBOS.write_stream_async("events", WORD)


@DBOS.workflow(name="work")
async def work(body: dict[str, Any]) -> None:
    await write_all()
    await DBOS.close_stream_async("events")


def serve_api() -> None:
    client = DBOSClient(system_database_url=URL, system_database_pool_size=20, use_listen_notify=True)

    async def accept(body: Mapping[str, Any]) -> str:
        handle = await client.enqueue_async({"queue_name": "work", "workflow_name": "work"}, dict(body))
        return handle.get_workflow_id()

    async def follow(name: str) -> AsyncIterator[str]:
        async for value in client.read_stream_async(name, "events", polling_interval_sec=POLL_SECONDS):
            yield value

    async def done() -> int:
        return 0  # counted in its table

    serve(accept, follow, done)


def execute() -> None:
    DBOS(config={"name": "work", "system_database_url": URL, "sys_db_pool_size": 20, "log_level": "ERROR",
                 "enable_otlp": False, "use_listen_notify": True})  # fmt: skip
    DBOS.launch()
    DBOS.register_queue("work", worker_concurrency=WORKER_CONCURRENCY, polling_interval_sec=POLL_SECONDS)
    if sys.argv[1] == "worker":
        threading.Event().wait()
    DBOS.destroy()


if __name__ == "__main__":
    if sys.argv[1] == "api":
        serve_api()
    else:
        execute()
