"""What a graph's state holds in the end is the answer: the same that plain LangGraph gives, turn by turn."""

from __future__ import annotations

from typing import Any

import pytest

from outlast.shared.connections import Database
from outlast.shared.settings import Settings
from tests.support.adder import summary
from tests.support.log import check_log, stored_lines
from tests.support.service import serving
from tests.support.strangers import GRAPHS, plain_answers

QUESTIONS = ("first", "second", "third")


@pytest.mark.parametrize("name", GRAPHS)
async def test_the_answer_is_that_of_plain_langgraph(settings: Settings, database: Database, name: str) -> None:
    expected = await plain_answers(GRAPHS[name](), QUESTIONS)
    async with serving(settings, {"graph": GRAPHS[name]()}) as service:
        for question, lines in zip(QUESTIONS, expected, strict=True):
            stream = await service.openai.responses.create(input=question, conversation="c", stream=True)
            events: list[Any] = [event async for event in stream]
            response = events[-1].response
            assert (response.status, summary(response)) == ("completed", lines), question
            assert summary(await service.openai.responses.retrieve(response.id)) == lines
            check_log(await stored_lines(database, response.id))
