"""(i) A worker is killed with all its processes while another one lives."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import openai

from bench import graphs
from bench.figures import Figure
from bench.processes import in_own_process, tree
from bench.stack import PORTS, Stack

RUNS = 200
KILLED_AT_STEP = 8
_PATIENCE_SECONDS = 300


@dataclass(frozen=True, slots=True)
class Entry:
    """A line of what the steps wrote down."""

    run: str
    attempt: int
    step: str
    what: str
    seconds: float


async def take_over(stack: Stack) -> list[Figure]:
    """200 runs of a LangGraph graph of 20 steps on two workers, one of which is killed with kill -9 in the middle.

    Each run has a client of its own: the openai client's stream, whose final response is compared with what is stored.
    """
    ledger = stack.folder / "ledger"
    env = {
        "OUTLAST_AGENTS": "steps=bench.graphs:graph",
        "OUTLAST_CHILDREN": "2",
        "OUTLAST_CONCURRENCY": "75",  # neither worker can take all; either can when it is over-committed
        graphs.LEDGER: str(ledger),
    }
    command = (sys.executable, "-m", "outlast.infra.cli", "worker")
    async with stack.api(PORTS[0], **env), stack.worker(**env), stack.process(*command, env=env) as victim:
        await stack.until_number("SELECT count(*) FROM workers", 2)
        following = asyncio.create_task(in_own_process(follow, PORTS[0], RUNS))
        await _until_step(ledger, KILLED_AT_STEP, following)
        held = await stack.number(f"SELECT count(*) FROM run_leases WHERE owner LIKE '%:{victim.pid}:%'")
        killed_at = time.monotonic()
        for pid in tree(victim.pid):
            os.kill(pid, signal.SIGKILL)
        unequal = await asyncio.wait_for(following, _PATIENCE_SECONDS)
        completed = await stack.number("SELECT count(*) FROM runs WHERE status = 'completed'")
    return [Figure("runs that completed", completed, "", at_least=RUNS),
            Figure("clients whose answer is not the stored one", len(unequal), "", at_most=0),
            *_figures(entries(ledger), killed_at, int(held))]  # fmt: skip


def _figures(written: Sequence[Entry], killed_at: float, held: int) -> list[Figure]:
    again: dict[str, float] = {}
    for entry in written:
        if entry.attempt > 1:
            again.setdefault(entry.run, entry.seconds - killed_at)
    return [
        Figure("runs of the killed worker", held, ""),
        Figure("runs taken over", len(again), "", at_least=held),
        Figure("a run goes on after the kill p50", median(again.values()), "s", at_most=7),
        Figure("a run goes on after the kill max", max(again.values()), "s", at_most=9),
        Figure("steps begun again", sum(count - 1 for count in _begun(written).values()), ""),
        Figure("steps begun again after the next one had begun", len(_repeated(written)), "", at_most=0),
        Figure("branches begun again that had ended", _branches_again(written), "", at_most=0),
    ]


def _begun(written: Sequence[Entry]) -> Counter[tuple[str, str]]:
    return Counter((entry.run, entry.step) for entry in written if entry.what == "begun")


def _number(step: str) -> int:
    return int(step.partition("-")[0])


def _repeated(written: Sequence[Entry]) -> set[tuple[str, str]]:
    """Steps of runs that were begun although a later one had been."""
    furthest: dict[str, int] = {}
    repeated: set[tuple[str, str]] = set()
    for entry in written:
        if entry.what == "begun":
            if _number(entry.step) < furthest.get(entry.run, 0):
                repeated.add((entry.run, entry.step))
            furthest[entry.run] = max(furthest.get(entry.run, 0), _number(entry.step))
    return repeated


def _branches_again(written: Sequence[Entry]) -> int:
    """Quick branches that had ended a while before the kill, and were begun again beside the slow one."""
    ended = {entry.run: entry.seconds for entry in written if entry.what == "ended" and entry.step.endswith("quick")}
    begun = [entry for entry in written if entry.what == "begun" and entry.step.endswith("quick") and entry.attempt > 1]
    return sum(entry.run in ended and ended[entry.run] < entry.seconds - graphs.PACE_SECONDS for entry in begun)


def entries(ledger: Path) -> list[Entry]:
    if not ledger.exists():
        return []
    lines = [line.split() for line in ledger.read_text().splitlines()]
    written = [Entry(run, int(attempt), step, what, float(at)) for run, attempt, step, what, at in lines]
    return sorted(written, key=lambda entry: entry.seconds)


async def _until_step(ledger: Path, number: int, following: asyncio.Task[list[str]]) -> None:
    """Until half of the runs have begun this step."""
    while sum(entry.what == "begun" and entry.step == str(number) for entry in entries(ledger)) < RUNS / 2:
        if following.done():
            raise RuntimeError("the clients ended before the kill") from following.exception()
        await asyncio.sleep(0.2)


async def follow(port: int, runs: int) -> list[str]:
    """Ask so often at once, stream every answer to its end; the ids of those that differ from what is stored."""
    async with openai.AsyncOpenAI(
        base_url=f"http://127.0.0.1:{port}/v1", api_key="none", max_retries=0, timeout=_PATIENCE_SECONDS
    ) as client:
        answers: list[Any] = await asyncio.gather(*(_answer(client) for _ in range(runs)))
        stored = [await client.responses.retrieve(answer.id) for answer in answers]
    return [a.id for a, b in zip(answers, stored, strict=True) if _plain(a) != _plain(b)]


async def _answer(client: openai.AsyncOpenAI) -> Any:
    async with client.responses.stream(model="steps", input="go", extra_body={"background": True}) as stream:
        async for _ in stream:
            pass
        return await stream.get_final_response()


def _plain(response: Any) -> dict[str, Any]:
    """Without what the stream's accumulator adds."""
    plain: dict[str, Any] = response.to_dict()
    for item in plain["output"]:
        for part in item.get("content") or ():
            part.pop("parsed", None)
    return plain
