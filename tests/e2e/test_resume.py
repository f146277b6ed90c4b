"""Graphs whose workers are killed again and again go on from their checkpoints, and nobody can tell by the answer."""

from __future__ import annotations

import os
import random
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import openai
import psycopg
import pytest

from outlast.shared.connections import Database
from tests.e2e.graph import ANSWERS
from tests.support.log import check_log, stored_lines
from tests.support.processes import agent_processes, free_port, parts
from tests.support.waiting import until_sync

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="looks processes up in /proc")

RUNS = 8
KILLS = 8


def answers(response: Any) -> list[str]:
    return sorted(
        f"{item.name}: {item.output}" if item.type == "mcp_call" else item.content[0].text for item in response.output
    )


def superseded(events: Sequence[dict[str, Any]]) -> set[str]:
    return {id for event in events for id in event.get("outlast", {}).get("superseded", ())}


def kept_from_earlier_attempts(events: Sequence[dict[str, Any]], response: Any) -> int:
    """Items of the answer that were finished before the last attempt began."""
    last = max((n for n, event in enumerate(events) if "outlast" in event), default=0)
    done = {event["item"]["id"] for event in events[:last] if event["type"] == "response.output_item.done"}
    return len(done & {item.id for item in response.output})


async def test_killed_graphs_answer_as_if_nothing_had_happened(
    database_url: str, redis_url: str, database: Database, tmp_path: Path
) -> None:
    env = {
        "DATABASE_URL": database_url,
        "REDIS_URL": redis_url,
        "OUTLAST_AGENTS": "graph=tests.e2e.graph:graph",
        "OUTLAST_CHILDREN": "2",
        "OUTLAST_PRELOAD": "outlast.worker.agents.langgraph",
        "OUTLAST_MAX_ATTEMPTS": "1000",
        "OUTLAST_LOG_LEVEL": "warning",
    }
    with parts(env, tmp_path) as started, psycopg.connect(database_url, autocommit=True) as connection:
        worker, port = started.worker(), free_port()
        started.api(port)
        client = openai.OpenAI(base_url=f"http://127.0.0.1:{port}/v1", api_key="none", max_retries=0)
        runs = [client.responses.create(input="go", background=True).id for _ in range(RUNS)]

        def stored() -> int:
            row = connection.execute("SELECT sum(last_seq) FROM outlast.run_heads WHERE NOT closed").fetchone()
            return row[0] or 0 if row else 0

        for _ in range(KILLS):
            enough = stored() + random.randint(5 * RUNS, 25 * RUNS)  # a step or two of each
            until_sync(lambda: stored() == 0 or stored() >= enough)
            if stored() and (children := agent_processes(worker.process.pid)):
                os.kill(random.choice(children), signal.SIGKILL)

        def ended() -> list[Any]:
            responses = [client.responses.retrieve(run) for run in runs]
            return responses if all(r.status not in ("queued", "in_progress") for r in responses) else []

        responses = until_sync(ended, seconds=120)

    kept = 0
    for response in responses:
        assert response.status == "completed", response.error
        assert answers(response) == ANSWERS
        assert response.custom_outputs == {"thread": "ran", "report": "ran"}
        events = check_log(await stored_lines(database, response.id))
        assert not superseded(events) & {item.id for item in response.output}
        kept += kept_from_earlier_attempts(events, response)
    assert max(response.attempt_number for response in responses) > 1, "nothing was killed in time"
    assert kept, "no attempt went on from a checkpoint"
