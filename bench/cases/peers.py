"""The same work by other systems: about 1 KB accepted, 20 events written, done."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

from bench import load
from bench.figures import Figure, percentiles, rate
from bench.http import Connection, Stream
from bench.processes import in_own_process
from bench.stack import CONNECTIONS, PORTS, ROOT, Stack, until_answers

PYTHON = ROOT / ".outlast/bench-peers/bin/python"
EVENTS = 20
SECONDS = 8.0
ANALYZE_AFTER_SECONDS = 2.5
DRAIN_SECONDS = 8.0
FIRST_EVENTS = 20
# 11 words make 20 events of ours: 3 of the run, 2 that open its message, 3 that close it, and the end.
OURS = json.dumps({"model": "burst", "input": "11" + " " * 950, "background": True}).encode()
THEIRS = json.dumps({"input": "x" * 980}).encode()


@dataclass(frozen=True, slots=True)
class Peer:
    """How a system is run and asked. ``done`` counts finished runs; ``analyze`` is run early in the load."""

    start: Callable[[Stack], AsyncGenerator[None]]
    done: Callable[[Stack], Awaitable[float]]
    submit: str = "/runs"
    events: str = "/runs/{}/events"
    body: bytes = THEIRS
    first: bytes = b"data: "
    analyze: str | None = None


async def measure(stack: Stack, peer: Peer) -> list[Figure]:
    """First events on the idle system, then 32 clients for eight seconds, then eight seconds of its backlog."""
    async with asynccontextmanager(peer.start)(stack):
        await in_own_process(_first_events, peer.submit, peer.events, peer.body, peer.first, 3)
        firsts = await in_own_process(_first_events, peer.submit, peer.events, peer.body, peer.first, FIRST_EVENTS)
        bare = await stack.bare_rate()
        already, began = await peer.done(stack), time.monotonic()
        times, _ = await asyncio.gather(
            in_own_process(load.keep_posting, PORTS[0], peer.submit, peer.body, CONNECTIONS, SECONDS),
            _analyze(stack, peer),
        )
        under_load, then = await peer.done(stack), time.monotonic()
        await asyncio.sleep(DRAIN_SECONDS)
        drained, ended = await peer.done(stack), time.monotonic()
    best = max((under_load - already) / (then - began), (drained - under_load) / (ended - then))
    return [
        Figure("bare INSERT before", bare, "/s"),
        rate("accepted", len(times) / SECONDS, bare),
        *percentiles("accept", times),
        Figure("runs done", best, "/s"),
        rate("events", EVENTS * best, bare),
        *percentiles("submit to first event, idle", firsts),
    ]


async def _analyze(stack: Stack, peer: Peer) -> None:
    if peer.analyze is not None:
        await asyncio.sleep(ANALYZE_AFTER_SECONDS)
        await stack.execute(peer.analyze)


async def _first_events(submit: str, events: str, body: bytes, first: bytes, count: int) -> list[float]:
    seconds: list[float] = []
    async with Connection.open(PORTS[0]) as connection:
        for _ in range(count):
            seen: list[float] = []

            def see(piece: bytes) -> None:
                if not seen and first in piece:
                    seen.append(time.monotonic())

            began = time.monotonic()
            _, answer = await connection.post(submit, body)
            stream = await Stream.open(PORTS[0], events.format(json.loads(answer)["id"]), see)
            await stream.ended.wait()
            stream.close()
            seconds.append(seen[0] - began)
            await asyncio.sleep(0.03)
    return seconds


async def _ours(stack: Stack) -> AsyncGenerator[None]:
    async with stack.api(PORTS[0]), stack.worker(OUTLAST_CONCURRENCY="100"):
        yield


def _app(module: str) -> Callable[[Stack], AsyncGenerator[None]]:
    """An API process and a worker process of a module of bench/peers, after its own migration."""
    command = (str(PYTHON), "-m", f"bench.peers.{module}")

    async def start(stack: Stack) -> AsyncGenerator[None]:
        env = {"BROKER_URL": stack.valkey.broker_url}
        async with stack.process(*command, "migrate", env=env) as migrating:
            await migrating.wait()
        async with AsyncExitStack() as parts:
            await parts.enter_async_context(stack.process(*command, "api", str(PORTS[0]), env=env))
            await parts.enter_async_context(stack.process(*command, "worker", env=env))
            await until_answers(PORTS[0], "/done")
            yield

    return start


async def _counted(_: Stack) -> float:
    async with Connection.open(PORTS[0]) as connection:
        return json.loads((await connection.get("/done"))[1])["done"]


PEERS: dict[str, Peer] = {
    "outlast": Peer(
        _ours,
        done=lambda stack: stack.number("SELECT count(*) FROM runs WHERE finished_at IS NOT NULL"),
        submit="/responses",
        events="/responses/{}?stream=true",
        body=OURS,
        first=b"response.output_text.delta",
    ),
    "procrastinate": Peer(_app("procrastinate_app"), _counted, analyze="ANALYZE"),
    "dbos": Peer(
        _app("dbos_app"),
        lambda stack: stack.number("SELECT count(*) FROM dbos.workflow_status WHERE status = 'SUCCESS'"),
    ),
    "celery": Peer(_app("celery_app"), _counted),
}
