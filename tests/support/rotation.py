"""Runs and streams going on while the logins to the database change under them.

By hand, with logins of 20 s over three minutes:

    python -m tests.support.rotation 20 180
"""

from __future__ import annotations

import asyncio
import json
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from outlast.infra.embedded import Postgres, Valkey
from outlast.infra.migrate import migrate, shipped
from outlast.shared.connections import Database, fixed

from .log import check_log, data_lines
from .processes import Part, Parts, free_port, parts
from .waiting import until
from .workspace import Workspace

RUNS = 100
STREAMS = 20
TICKS_A_SECOND = 4
_AT_ONCE = 10
_AGENTS = "words=tests.e2e.agents:words,tick=tests.e2e.agents:tick,graph=tests.e2e.graph:graph"


@dataclass
class Service:
    """An API and a worker that reach their database through a workspace only."""

    workspace: Workspace
    env: dict[str, str]
    parts: Parts
    url: str
    api: Part
    worker: Part

    def command(self, *arguments: str) -> tuple[int, str]:
        """An `outlast` command of the same environment: its exit code, and what it said."""
        part = self.parts.launch(list(arguments), {})
        return part.process.wait(60), part.said


@contextmanager
def service(workspace: Workspace, redis_url: str, folder: Path, **more: str) -> Generator[Service]:
    env = {
        **workspace.env("project"),
        "REDIS_URL": redis_url,
        "OUTLAST_AGENTS": _AGENTS,
        "OUTLAST_LOG_LEVEL": "warning",
        "OUTLAST_CONNECTION_LIFE_SECONDS": "3",
        "OUTLAST_LEASE_SECONDS": "3",
        "OUTLAST_BEAT_SECONDS": "0.5",
        **more,
    }
    with parts(env, folder) as started:
        port = free_port()
        worker = started.launch(["worker"], {})
        api = started.api(port)
        worker.wait_ready()
        yield Service(workspace, env, started, f"http://127.0.0.1:{port}", api, worker)


@dataclass
class Outcome:
    """What came of all that was asked."""

    statuses: Counter[str] = field(default_factory=Counter)
    """Of the runs that were polled for."""
    refused: Counter[int] = field(default_factory=Counter)
    """HTTP statuses other than 200; the request was made again."""
    streamed: list[list[dict[str, Any]]] = field(default_factory=list)
    """The events of each stream."""


class Load:
    """Asks for runs and streams, as patient clients do: after a 503 again."""

    def __init__(self, url: str) -> None:
        self.outcome = Outcome()
        self._http = httpx.AsyncClient(base_url=url, timeout=120)

    async def __aenter__(self) -> Load:
        return self

    async def __aexit__(self, *_error: object) -> None:
        await self._http.aclose()

    async def run(self, model: str = "words") -> None:
        """One run in the background, polled until it has ended."""
        answer = await self._answered("POST", json={"model": model, "input": "go", "background": True})

        async def ended() -> str | None:
            status = (await self._answered("GET", answer["id"]))["status"]
            return status if status not in ("queued", "in_progress") else None

        self.outcome.statuses[await until(ended, seconds=120)] += 1

    async def _answered(self, method: str, name: str = "", **body: Any) -> dict[str, Any]:
        async def answered() -> dict[str, Any] | None:
            answer = await self._http.request(method, f"/responses/{name}".rstrip("/"), **body)
            if answer.status_code != 200:
                self.outcome.refused[answer.status_code] += 1
            return answer.json() if answer.status_code == 200 else None

        return await until(answered, seconds=120)

    async def stream(self, ticks: int) -> None:
        body = {"model": "tick", "input": str(ticks), "stream": True}
        answer = await self._http.post("/responses", json=body)
        assert answer.status_code == 200, answer.text
        events = check_log(data_lines(answer.content))
        [message] = events[-1]["response"]["output"]  # of the last attempt, if the run was taken over
        assert message["content"][0]["text"] == "".join(f"{number} " for number in range(ticks))
        self.outcome.streamed.append(events)


async def rotate(serving: Service, *, seconds: float, runs: int = RUNS, streams: int = STREAMS) -> Outcome:
    """Runs, ten at a time, and streams over so many seconds. After each ten all connections are broken off."""
    began = time.monotonic()
    async with Load(serving.url) as load:
        streaming = [asyncio.create_task(load.stream(int(seconds * TICKS_A_SECOND))) for _ in range(streams)]
        done = 0
        while done < runs or time.monotonic() - began < seconds:
            models = ["graph"] + ["words"] * (_AT_ONCE - 1)
            await asyncio.gather(*(load.run(model) for model in models))
            done += _AT_ONCE
            await asyncio.to_thread(serving.workspace.front.drop)
        await asyncio.gather(*streaming)
    return load.outcome


def figures(workspace: Workspace, outcome: Outcome, seconds: float) -> dict[str, Any]:
    front = workspace.front
    return {
        "seconds": round(seconds, 1),
        "credential_seconds": workspace.directory.credential_seconds,
        "runs": dict(outcome.statuses),
        "streams": len(outcome.streamed),
        "events streamed": sum(map(len, outcome.streamed)),
        "requests refused": dict(outcome.refused),
        "mints": len(workspace.mints),
        "logins": len(front.accepted),
        "logins refused": len(front.refused),
    }


async def _by_hand(credential_seconds: float, seconds: float) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        postgres, valkey = Postgres(folder / "postgres"), Valkey(folder / "valkey")
        postgres.start()
        valkey.start()
        try:
            await migrate(Database(fixed(postgres.url), schema="outlast", application="rotation"), shipped())
            async with Workspace(postgres.url, credential_seconds=credential_seconds) as workspace:
                with service(workspace, valkey.url, folder) as serving:
                    assert serving.command("migrate")[0] == 0
                    began = time.monotonic()
                    outcome = await rotate(serving, seconds=seconds)
                    print(json.dumps(figures(workspace, outcome, time.monotonic() - began), indent=1))
        finally:
            valkey.stop()
            postgres.stop()


if __name__ == "__main__":
    asyncio.run(_by_hand(float(sys.argv[1]), float(sys.argv[2])))
