"""Function agents that save go on from there: what they had said stays, and what came after is taken back."""

from __future__ import annotations

import asyncio
from typing import Any

import openai

from outlast.agent import Context, Reasoning, Request, Text, ToolCall, ToolResult
from outlast.shared.connections import Database
from outlast.shared.settings import Settings
from tests.support.log import check_log, stored_lines
from tests.support.runs import take_first_attempts_over
from tests.support.service import Service, serving
from tests.support.waiting import until


class Steps:
    """An agent of three steps; its first attempt is held up in the third."""

    def __init__(self) -> None:
        self.done: list[str] = []
        self.held_up = asyncio.Event()
        self.context: Context | None = None

    async def agent(self, _request: Request, context: Context):
        first = context.saved.get("next", 1)
        self.context = context
        for number in range(first, 4):
            self.done.append(f"{context.attempt}:{number}")
            yield Reasoning(f"thinking of {number}")
            yield ToolCall("work", {"number": number}, call_id=f"call_{number}")
            if number == 3 and context.attempt == 1:
                yield "not to be kept"
                self.held_up.set()
                await asyncio.Event().wait()
            yield ToolResult(f"call_{number}", "done")
            yield Text(f"{number} is ", key=f"key {number}")
            yield Text("done", key=f"key {number}")
            await context.save(next=number + 1, last=f"step {number}")


async def lost_once(service: Service, database: Database, held_up: asyncio.Event, **request: Any) -> str:
    run = (await service.openai.responses.create(input="x", background=True, **request)).id
    await asyncio.wait_for(held_up.wait(), 20)
    await take_first_attempts_over(database)
    return run


async def completed(client: openai.AsyncOpenAI, run: str) -> Any:
    async def found() -> Any:
        response = await client.responses.retrieve(run)
        return response if response.status == "completed" else None

    return await until(found)


def kinds(response: Any) -> list[str]:
    return [f"{item.type}: {item.content[0].text}" if item.type == "message" else item.type for item in response.output]


async def test_the_next_attempt_goes_on_from_what_was_saved(settings: Settings, database: Database) -> None:
    steps = Steps()
    async with serving(settings, {"steps": steps.agent}) as service:
        run = await lost_once(service, database, steps.held_up)
        response = await completed(service.openai, run)
        events = check_log(await stored_lines(database, run))

    assert steps.done == ["1:1", "1:2", "1:3", "2:3"]
    assert steps.context is not None and steps.context.saved == {"next": 4, "last": "step 3"}
    assert kinds(response) == [
        "reasoning", "mcp_call", "message: 1 is done",
        "reasoning", "mcp_call", "message: 2 is done",
        "reasoning", "mcp_call", "message: 3 is done",
    ]  # fmt: skip
    marker = next(event["outlast"] for event in events if "outlast" in event)
    assert (marker["attempt"], len(marker["superseded"])) == (2, 3)


async def test_an_attempt_that_lost_its_run_can_save_nothing(settings: Settings, database: Database) -> None:
    begun, go = asyncio.Event(), asyncio.Event()
    seen: list[Any] = []

    async def agent(_request: Request, context: Context):
        seen.append(dict(context.saved))
        if context.attempt == 1:
            await context.save(by=1)
            begun.set()
            try:
                await asyncio.Event().wait()
            finally:
                go.set()
                await context.save(by="a zombie")
        await go.wait()
        yield f"saved by {context.saved['by']}"

    async with serving(settings, {"agent": agent}) as service:
        run = await lost_once(service, database, begun)
        response = await completed(service.openai, run)
        rows = await database.run(lambda c: c.execute("SELECT saved FROM run_saves"))
        assert "zombie" not in str(await rows.fetchall())

    assert response.output_text == "saved by 1"
    assert seen == [{}, {"by": 1}]


async def test_what_cannot_be_saved_fails_the_run_and_says_why(settings: Settings) -> None:
    async def large(_request: Request, context: Context):
        await context.save(text="x" * 300_000)
        yield "never"

    async def strange(_request: Request, context: Context):
        await context.save(this=object())
        yield "never"

    async with serving(settings, {"large": large, "strange": strange}) as service:
        for name, words in (("large", "262144 bytes"), ("strange", "cannot be kept as JSON")):
            response = await service.openai.responses.create(input="x", model=name)
            assert response.error is not None and words in response.error.message, response.error
