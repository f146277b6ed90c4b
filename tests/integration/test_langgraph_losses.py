"""Strangers' graphs whose worker is lost between two steps: the answer stays that of plain LangGraph."""

from __future__ import annotations

from typing import Any

import pytest

from outlast.shared.connections import Database
from outlast.shared.settings import Settings
from outlast.worker.agents.langgraph.saver import FencedSaver
from tests.support.adder import summary
from tests.support.log import check_log, stored_lines
from tests.support.runs import take_first_attempts_over
from tests.support.service import serving
from tests.support.strangers import GRAPHS, plain_answers

SIDE_BY_SIDE = {"one_call_id_for_two_calls", "two_empty_call_ids_in_one_message"}
"""Graphs with tools that run at the same time: what survives comes before what is said again."""


@pytest.mark.parametrize("checkpoints", [3, 5])
@pytest.mark.parametrize("name", GRAPHS)
async def test_the_next_attempt_says_what_is_left_to_say(
    settings: Settings, database: Database, name: str, checkpoints: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a graph with fewer checkpoints no attempt is lost."""
    [expected] = await plain_answers(GRAPHS[name](), ["first"])
    put, stored = FencedSaver.aput, 0

    async def aput(self: FencedSaver, *given: Any) -> Any:
        nonlocal stored
        config = await put(self, *given)
        stored += 1
        if stored == checkpoints:
            await take_first_attempts_over(database)
        return config

    monkeypatch.setattr(FencedSaver, "aput", aput)
    async with serving(settings, {"graph": GRAPHS[name]()}) as service:
        stream = await service.openai.responses.create(input="first", stream=True)
        response: Any = [event async for event in stream][-1].response  # type: ignore[union-attr]
        check_log(await stored_lines(database, response.id))
    said = summary(response)
    if name in SIDE_BY_SIDE:
        said, expected = sorted(said), sorted(expected)
    assert (response.status, said) == ("completed", expected)
