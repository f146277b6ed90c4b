"""A service in the test's own process: API replicas on real ports, and a runtime for the test's agents."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from functools import cached_property

import openai
import uvicorn

from outlast.agent import Agent, Context, Request
from outlast.api.app import create_app
from outlast.api.bounded_http import BoundedHttp
from outlast.api.server import Server
from outlast.api.services import Services
from outlast.shared.connections import Database, fixed
from outlast.shared.domain.runs import AgentKind, Lease
from outlast.shared.doorbell import Doorbell
from outlast.shared.settings import Settings
from outlast.worker.agents.loading import adapted
from outlast.worker.attempt import Stop
from outlast.worker.dispatcher import Dispatcher
from outlast.worker.lease_clock import LeaseClock
from outlast.worker.runtime import Runtime, open_runtime


@dataclass
class Replica:
    """One API replica."""

    url: str
    server: Server
    task: asyncio.Task[None]

    @property
    def services(self) -> Services:
        return self.server.config.app.state.services  # type: ignore[union-attr]

    @cached_property
    def openai(self) -> openai.AsyncOpenAI:
        return openai.AsyncOpenAI(base_url=f"{self.url}/v1", api_key="none", max_retries=0, timeout=20)

    async def stop(self) -> None:
        await self.openai.close()
        self.server.should_exit = True
        await self.task


def gated_by(gate: asyncio.Event) -> Agent:
    """An agent that answers with what it was asked, once the gate is open."""

    async def gated(request: Request, _context: Context):
        await gate.wait()
        yield request.text

    return gated


class Worker:
    """A worker without processes: its one executor is here."""

    def __init__(
        self,
        dispatcher: Dispatcher,
        runtime: Runtime,
        slots: int,
        clock: LeaseClock,
        agents: Mapping[str, AgentKind],
    ) -> None:
        self.dispatcher = dispatcher
        self.clock = clock
        self._runtime = runtime
        self.slots = slots
        self.isolated = False
        self.agents = agents

    def start(self, leases: Sequence[Lease], claimed_at: float) -> None:
        self._runtime.start(leases, claimed_at)

    def stop(self, lease: Lease, why: Stop) -> None:
        self._runtime.stop(lease, why)

    def renewed(self, began: float) -> None:
        self.clock.renewed(began)


@dataclass
class Service:
    settings: Settings
    replicas: list[Replica] = field(default_factory=list[Replica])
    workers: list[Worker] = field(default_factory=list["Worker"])

    @property
    def url(self) -> str:
        return self.replicas[0].url

    @property
    def openai(self) -> openai.AsyncOpenAI:
        return self.replicas[0].openai


@asynccontextmanager
async def serving(
    settings: Settings,
    agents: Mapping[str, object],
    *,
    replicas: int = 1,
    workers: int = 1,
    on_loopback: bool = True,
) -> AsyncGenerator[Service]:
    """The service with these agents; the first is the default."""
    named = settings.model_copy(update={"agents": {name: f"tests:{name}" for name in agents}})
    async with AsyncExitStack() as stack:
        service = Service(named)
        for _ in range(replicas):
            service.replicas.append(await stack.enter_async_context(replica(named, on_loopback=on_loopback)))
        for _ in range(workers):
            service.workers.append(await stack.enter_async_context(worker(named, agents)))
        yield service


@asynccontextmanager
async def worker(settings: Settings, agents: Mapping[str, object]) -> AsyncGenerator[Worker]:
    database = Database(
        fixed(settings.required_database_url()), schema=settings.db_schema, application="test worker", pin_plan=True
    )
    doorbell = Doorbell(settings.required_redis_url(), settings.db_schema)
    doorbell.start()
    dispatcher = Dispatcher(database, settings, doorbell)
    async with AsyncExitStack() as stack:
        adapters = {name: await adapted(name, agent, stack, settings.graph_options) for name, agent in agents.items()}
        await stack.enter_async_context(database.pooled(max_connections=3))
        clock = LeaseClock()
        runtime = await stack.enter_async_context(
            open_runtime(settings, adapters, dispatcher.ended, clock, tally=dispatcher.tally)
        )
        kinds = {name: adapter.kind for name, adapter in adapters.items()}
        executor = Worker(dispatcher, runtime, settings.concurrency, clock, kinds)
        dispatcher.add(executor)
        keeping = asyncio.create_task(dispatcher.run_forever())
        try:
            yield executor
        finally:
            await dispatcher.drain()
            keeping.cancel()
            await asyncio.wait({keeping})
            await dispatcher.close()
            doorbell.stop()


@asynccontextmanager
async def replica(settings: Settings, *, on_loopback: bool = True) -> AsyncGenerator[Replica]:
    # Without the protocol's number asyncio leaves Nagle's algorithm on: 40 ms for each answer.
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP) as listening:
        listening.bind(("127.0.0.1", 0))
        config = uvicorn.Config(
            create_app(settings, on_loopback=on_loopback),
            log_config=None,
            access_log=False,
            timeout_graceful_shutdown=2,
            timeout_keep_alive=75,
            lifespan="on",
            http=BoundedHttp,
        )
        server = Server(config)
        task = asyncio.create_task(server.serve([listening]))
        while not server.started and not task.done():
            await asyncio.sleep(0)
        if task.done():
            task.result()
        started = Replica(f"http://127.0.0.1:{listening.getsockname()[1]}", server, task)
        try:
            yield started
        finally:
            await started.stop()
