"""Real processes, killed: a run outlasts its worker, its API and its broker, and its stream continues."""

from __future__ import annotations

import os
import signal
from collections.abc import Generator
from functools import cache
from pathlib import Path

import httpx
import openai
import psycopg
import pytest

from outlast.shared.connections import Database
from tests.support.log import check_log, data_lines, stored_lines
from tests.support.processes import Part, Parts, free_port, parts
from tests.support.waiting import until_sync


@pytest.fixture
def started(database_url: str, redis_url: str, tmp_path: Path) -> Generator[Parts]:
    env = {
        "DATABASE_URL": database_url,
        "REDIS_URL": redis_url,
        "OUTLAST_AGENTS": "count=tests.e2e.agents:count",
        "OUTLAST_LEASE_SECONDS": "1.5",
        "OUTLAST_BEAT_SECONDS": "0.3",
        "OUTLAST_DRAIN_SECONDS": "0.2",
    }
    with parts(env, tmp_path) as starting:
        yield starting
    while _clients:
        _clients.pop().close()
    client.cache_clear()


@cache
def client(port: int) -> openai.OpenAI:
    """A client of the API at this port; all are closed with the parts."""
    made = openai.OpenAI(base_url=f"http://127.0.0.1:{port}/v1", api_key="none", max_retries=0, timeout=60)
    _clients.append(made)
    return made


_clients: list[openai.OpenAI] = []


def replay(port: int, run: str, starting_after: int = -1) -> list[str]:
    query = f"?stream=true&starting_after={starting_after}" if starting_after >= 0 else "?stream=true"
    return data_lines(httpx.get(f"http://127.0.0.1:{port}/v1/responses/{run}{query}", timeout=60).content)


def holder(database_url: str) -> int:
    """The process id of the worker that holds the only run."""
    with psycopg.connect(database_url) as connection:
        [(owner,)] = connection.execute("SELECT owner FROM outlast.run_leases").fetchall()
    return int(owner.split(":")[1])


def begun(openai_client: openai.OpenAI, numbers: int) -> tuple[str, list[int]]:
    """A background run of which some text has been streamed; its id and the numbers seen."""
    seen: list[int] = []
    run = ""
    with openai_client.responses.create(input=str(numbers), background=True, stream=True) as stream:
        for event in stream:
            seen.append(event.sequence_number)
            run = run or event.response.id  # type: ignore[union-attr]
            if event.type == "response.output_text.delta" and len(seen) > 20:
                return run, seen
    raise AssertionError("the run ended before it could be interrupted")


async def test_a_stream_begun_on_one_api_is_continued_on_another_and_after_both_were_killed(
    started: Parts, database: Database
) -> None:
    first_port, second_port = free_port(), free_port()
    started.worker()
    first, second = started.api(first_port), started.api(second_port)
    run, seen = begun(client(first_port), 100)
    first.kill()
    on_second: list[int] = []
    with client(second_port).responses.retrieve(run, stream=True, starting_after=seen[-1]) as stream:
        for event in stream:
            on_second.append(event.sequence_number)
            if len(on_second) > 20:
                break
    second.kill()
    third_port = free_port()
    started.api(third_port)

    rest = replay(third_port, run, on_second[-1])

    lines = await stored_lines(database, run)
    check_log(lines)
    assert seen + on_second == list(range(on_second[-1] + 1))
    assert rest == lines[on_second[-1] + 1 :]
    assert replay(third_port, run) == lines


async def test_a_run_whose_worker_is_killed_is_continued_by_another(started: Parts, database: Database) -> None:
    port = free_port()
    worker = started.worker()
    started.api(port)
    run, seen = begun(client(port), 150)
    following = client(port).responses.stream(response_id=run, starting_after=seen[-1])
    worker.kill()
    started.worker()

    with following as stream:
        for _ in stream:
            pass
        final = stream.get_final_response()

    expected = "".join(f"{n} " for n in range(150))
    assert final.output_text == expected
    assert client(port).responses.retrieve(run).output_text == expected
    events = check_log(await stored_lines(database, run))
    [marked] = [event for event in events if "outlast" in event]
    assert marked["outlast"]["attempt"] == 2
    superseded = {e["item"]["id"] for e in events[: marked["sequence_number"]] if e["type"].endswith("item.added")}
    assert set(marked["outlast"]["superseded"]) == superseded
    assert [item.type for item in final.output] == ["mcp_call", "message"]


async def test_a_stopping_worker_hands_its_run_back_at_once(
    started: Parts, database: Database, database_url: str
) -> None:
    port = free_port()
    workers = {worker.process.pid: worker for worker in (started.worker(), started.worker())}
    started.api(port)
    run, _ = begun(client(port), 200)

    assert workers[holder(database_url)].stop() == 0
    lines = replay(port, run)

    events = check_log(lines)
    assert events[-1]["response"]["attempt_number"] == 2
    assert lines == await stored_lines(database, run)


BREAKS_WHEN_IT_HAS_A_RUN = """
import asyncio
from outlast.worker.dispatcher import Dispatcher

async def broken(self):
    while not self._held:
        await asyncio.sleep(0.05)
    raise RuntimeError("a fault of Outlast")

Dispatcher._answer_cancels = broken
"""


def test_a_worker_whose_beat_has_ended_hands_its_run_back_and_ends(started: Parts, tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(BREAKS_WHEN_IT_HAS_A_RUN)
    port = free_port()
    broken = started.worker(PYTHONPATH=str(tmp_path))
    started.api(port)
    run = client(port).responses.create(input="20", background=True).id

    assert broken.process.wait(30) == 1
    assert "worker.broke" in broken.said and "a fault of Outlast" in broken.said
    started.worker()
    assert check_log(replay(port, run))[-1]["response"]["attempt_number"] == 2


def test_runs_are_accepted_and_executed_while_the_broker_is_away(started: Parts) -> None:
    port = free_port()
    started.api(port, REDIS_URL="redis://127.0.0.1:1/0")
    started.worker()

    response = client(port).responses.create(model="count", input="3")

    assert response.output_text == "0 1 2 "


def test_a_stopped_worker_that_wakes_up_after_a_takeover_changes_nothing(started: Parts) -> None:
    port = free_port()
    sleeper = started.worker()
    started.api(port)
    run, _ = begun(client(port), 400)
    os.kill(sleeper.process.pid, signal.SIGSTOP)
    try:
        started.worker()

        def taken_over() -> bool:
            return client(port).responses.retrieve(run).model_extra["attempt_number"] == 2  # type: ignore[index]

        until_sync(taken_over)
    finally:
        os.kill(sleeper.process.pid, signal.SIGCONT)

    events = check_log(replay(port, run))
    assert [e["outlast"]["attempt"] for e in events if "outlast" in e] == [2]
    assert events[-1]["response"]["output"][-1]["content"][0]["text"] == "".join(f"{n} " for n in range(400))


def test_parts_say_in_one_line_why_they_do_not_start(started: Parts, tmp_path: Path) -> None:
    taken = free_port()
    started.api(taken)
    env = {"DATABASE_URL": "postgresql://nobody@127.0.0.1:1/x", "REDIS_URL": "redis://127.0.0.1:1/0"}
    for arguments, agents, words in [
        (["api", "--port", str(taken)], "a=b:c", f"--port {taken + 1}"),
        (["api", "--host", "0.0.0.0"], "a=b:c", "OUTLAST_AUTH"),
        (["worker"], "a=no.such.module:agent", "there is no module"),
        (["migrate"], "a=b:c", "cannot be reached"),
    ]:
        part = Part(arguments, {**env, "OUTLAST_AGENTS": agents}, tmp_path / "said.txt")
        try:
            assert part.process.wait(60) == 1, part.said
            assert words in part.said
            assert "Traceback" not in part.said
        finally:
            part.close()
