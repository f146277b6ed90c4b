"""Every process is replaced under load, as a deployment does it: no run fails, no client loses or doubles an event."""

from __future__ import annotations

import asyncio
import itertools
import sys
from pathlib import Path
from typing import Any

import openai
import psycopg
import pytest

from outlast.shared.connections import Database
from outlast.shared.domain.events import TERMINAL_TYPES
from tests.e2e.graph import ANSWERS
from tests.e2e.test_resume import answers
from tests.support.log import check_log, stored_lines
from tests.support.processes import Part, Parts, free_port, parts, wait_serving
from tests.support.waiting import until_sync

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="looks processes up in /proc")

CLIENTS = 8
NUMBERS = 100  # two seconds of them
COUNTED = "".join(f"{number} " for number in range(NUMBERS))
INPUTS = {"count": str(NUMBERS), "graph": "go"}

_BROKEN = ("RemoteProtocolError", "ReadError")


class Deployment:
    """Two API replicas and two workers, or the next two while they are replaced."""

    def __init__(self, started: Parts, database_url: str) -> None:
        self._started = started
        self._database_url = database_url
        self.ports: list[int] = []
        self.apis: list[Part] = []
        self.workers: list[Part] = []

    def launch(self) -> tuple[list[int], list[Part], list[Part]]:
        """All four at the same time; returns when they are ready."""
        ports = [free_port(), free_port()]
        apis = [self._started.launch(["api", "--port", str(port)], {}) for port in ports]
        workers = [self._started.launch(["worker"], {}) for _ in ports]
        for api, port in zip(apis, ports, strict=True):
            wait_serving(api, port)
        for part in workers:
            part.wait_ready()
        return ports, apis, workers

    def start(self) -> None:
        self.ports, self.apis, self.workers = self.launch()

    def replace(self) -> list[int]:
        """The exit codes of those that were replaced, one after the other."""
        ports, apis, workers = self.launch()
        old_ports, old_apis, old_workers = self.ports, self.apis, self.workers
        self.workers = workers
        codes: list[int] = []
        for worker in old_workers:
            until_sync(lambda pid=worker.process.pid: self._runs_held_by(pid))
            codes.append(worker.stop())
        self.ports, self.apis = [*old_ports, *ports], apis
        for port, api in zip(old_ports, old_apis, strict=True):
            self.ports.remove(port)  # as a load balancer does, though a little late
            codes.append(api.stop())
        return codes

    def _runs_held_by(self, pid: int) -> int:
        with psycopg.connect(self._database_url) as connection:
            held = connection.execute("SELECT FROM outlast.run_leases WHERE owner LIKE %s", (f"%:{pid}:%",))
            return held.rowcount


class Client:
    """Asks again and again, and follows each answer from replica to replica until it has the end."""

    def __init__(self, deployment: Deployment, name: int) -> None:
        self._deployment = deployment
        self._name = name
        self.answers: dict[str, list[int]] = {}
        """The numbers of the events seen, by run."""
        self.hops = 0

    async def ask_until(self, enough: asyncio.Event) -> None:
        for number in itertools.count():
            await self._ask(list(INPUTS)[(self._name + number) % 2], f"{self._name}-{number}")
            if enough.is_set():
                return

    async def _ask(self, model: str, key: str) -> None:
        run, seen = "", list[int]()
        while True:
            port = self._deployment.ports[(self._name + self.hops) % len(self._deployment.ports)]
            async with openai.AsyncOpenAI(
                base_url=f"http://127.0.0.1:{port}/v1", api_key="none", max_retries=0, timeout=60
            ) as client:
                try:
                    async for event in await self._stream(client, model, key, run, seen):
                        run = run or event.response.id
                        seen.append(event.sequence_number)
                        self.answers[run] = seen
                        if event.type in TERMINAL_TYPES:
                            return
                except (openai.APIConnectionError, openai.InternalServerError):
                    pass
                except Exception as error:
                    if type(error).__name__ not in _BROKEN:  # httpx's or httpx2's, whichever openai uses
                        raise
            self.hops += 1

    async def _stream(self, client: openai.AsyncOpenAI, model: str, key: str, run: str, seen: list[int]) -> Any:
        if not run:
            return await client.responses.create(
                model=model, input=INPUTS[model], background=True, stream=True,
                extra_headers={"Idempotency-Key": key},
            )  # fmt: skip
        return await client.responses.retrieve(run, stream=True, starting_after=seen[-1])


async def test_every_process_is_replaced_under_load_and_nobody_notices(
    database_url: str, redis_url: str, database: Database, tmp_path: Path
) -> None:
    env = {
        "DATABASE_URL": database_url,
        "REDIS_URL": redis_url,
        "OUTLAST_AGENTS": "count=tests.e2e.agents:count,graph=tests.e2e.graph:graph",
        "OUTLAST_CHILDREN": "1",
        "OUTLAST_PRELOAD": "outlast.worker.agents.langgraph",
        "OUTLAST_DRAIN_SECONDS": "0.5",
        "OUTLAST_LOG_LEVEL": "warning",
    }
    with parts(env, tmp_path) as started:
        deployment = Deployment(started, database_url)
        await asyncio.to_thread(deployment.start)
        clients = [Client(deployment, number) for number in range(CLIENTS)]
        enough = asyncio.Event()
        asking = [asyncio.create_task(client.ask_until(enough)) for client in clients]
        codes = await asyncio.to_thread(deployment.replace)
        enough.set()
        await asyncio.gather(*asking)
        async with openai.AsyncOpenAI(base_url=f"http://127.0.0.1:{deployment.ports[0]}/v1", api_key="none") as client:
            runs = {run: seen for each in clients for run, seen in each.answers.items()}
            responses: list[Any] = [await client.responses.retrieve(run) for run in runs]

    assert codes == [0] * 4
    assert sum(client.hops for client in clients), "no stream was interrupted"
    for response in responses:
        lines = await stored_lines(database, response.id)
        check_log(lines)
        assert runs[response.id] == list(range(len(lines)))
        assert response.status == "completed", response.error
        if response.model == "graph":
            assert answers(response) == ANSWERS
        else:
            assert response.output_text == COUNTED
    assert max(response.attempt_number for response in responses) > 1, "no run was handed to another worker"
