"""What a worker says of itself once a beat, for operators to see."""

from __future__ import annotations

import asyncio
import os
import socket
from importlib.metadata import version
from uuid import uuid4

import structlog

from outlast.shared.connections import Database
from outlast.shared.domain.errors import OutlastError
from outlast.shared.domain.measures import Tally
from outlast.shared.domain.runs import AgentKind
from outlast.shared.settings import Settings
from outlast.shared.store import workers
from outlast.shared.sweep import Sweep

from .holdings import Holdings

log = structlog.get_logger()


class Reports:
    def __init__(self, database: Database, settings: Settings, held: Holdings, tally: Tally, sweep: Sweep) -> None:
        self._database = database
        self._settings = settings
        self._held = held
        self._tally = tally
        self._sweep = sweep
        self._host = socket.gethostname()
        self._version = version("outlast")
        self._agents: dict[str, AgentKind] = {}
        self.owner = f"{self._host}:{os.getpid()}:{uuid4().hex[:8]}"
        """This worker's name; no other start of a worker has it."""
        self.drain_asked = asyncio.Event()
        """An operator wants this worker to end."""

    async def send(self, slots: int, *, draining: bool, resting_seconds: float | None = None) -> None:
        """``resting_seconds``: it will not report again before, unless there is work. Raises Unavailable."""
        self._tally.counters.update(self._database.take_pool_waits())
        for executor in self._held.executors:
            self._agents.update(executor.agents)
        report = workers.Report(
            owner=self.owner,
            host=self._host,
            pid=os.getpid(),
            version=self._version,
            queues=self._settings.served_queues,
            children=len(self._held.executors),
            slots=slots,
            running=len(self._held),
            draining=draining,
            resting_seconds=resting_seconds,
            counters={**self._tally.counters, **self._sweep.counters},
            samples=self._tally.samples,
            agents=self._agents,
        )
        if await self._database.run(lambda c: workers.report(c, report), patience_seconds=0):
            self.drain_asked.set()

    async def withdraw(self) -> None:
        """A worker that ends by itself takes its report along."""
        try:
            await self._database.run(lambda c: workers.forget(c, self.owner), patience_seconds=0)
        except OutlastError as error:
            log.warning("worker.not_forgotten", error=error.message)
