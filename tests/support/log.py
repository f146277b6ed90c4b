"""The log as it is stored: what every stream is compared with."""

from __future__ import annotations

import json
from typing import Any

import httpx

from outlast.shared.connections import Database
from outlast.shared.domain.events import TERMINAL_TYPES
from outlast.shared.domain.ids import parse_response_id
from outlast.shared.store import events


async def stored_lines(database: Database, response_id: str) -> list[str]:
    """Every event of a run, as text."""
    run_id = parse_response_id(response_id)
    assert run_id is not None
    return await database.run(lambda c: events.read_all(c, run_id))


async def streamed(url: str, response_id: str, query: str = "") -> bytes:
    """A stream of a run's events, to its end."""
    async with httpx.AsyncClient(base_url=url, timeout=30) as client:
        return (await client.get(f"/responses/{response_id}?stream=true{query}")).content


def data_lines(body: bytes) -> list[str]:
    """The data lines of a stream of server-sent events, without ``[DONE]``."""
    lines = [line[6:] for line in body.decode().split("\n") if line.startswith("data: ")]
    return [line for line in lines if line != "[DONE]"]


def check_log(lines: list[str]) -> list[dict[str, Any]]:
    """The events, numbered 0..n without a gap, with one terminal event, which is the last."""
    found = [json.loads(line) for line in lines]
    assert [event["sequence_number"] for event in found] == list(range(len(found)))
    assert [event["type"] in TERMINAL_TYPES for event in found] == [False] * (len(found) - 1) + [True]
    return found
