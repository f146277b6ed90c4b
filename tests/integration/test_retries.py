"""Agents that fail with what may pass: they are tried again later, and hold nothing meanwhile."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from typing import Any

import pytest
from langchain.agents import create_agent
from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.tools import tool
from langgraph.graph import START, StateGraph

from outlast.agent import Context, Request, Retry
from outlast.shared.connections import Database
from outlast.shared.domain.ids import parse_response_id
from outlast.shared.domain.runs import Run
from outlast.shared.settings import Settings
from outlast.shared.store import overview, runs
from tests.support.adder import summary
from tests.support.graphs import Conversation, RuleModel, call, calling, tool_results
from tests.support.log import stored_lines
from tests.support.service import Service, serving
from tests.support.streams import check_stream
from tests.support.waiting import until

SECRET = "sk-a-key-that-nobody-may-see"


@pytest.fixture
def brief(settings: Settings) -> Settings:
    """Retries that come soon, and leases that no busy machine loses."""
    return settings.model_copy(update={"retry_seconds": 0.01, "lease_seconds": 10.0})


class Flaky:
    """An agent that says which attempt it is, and then fails until it has been tried often enough."""

    def __init__(self, failures: int, error: Exception | None = None) -> None:
        self.attempts: list[int] = []
        self._failures = failures
        self._error = error or ConnectionResetError(SECRET)

    async def __call__(self, request: Request, context: Context):
        self.attempts.append(context.attempt)
        yield f"attempt {context.attempt}"
        if len(self.attempts) <= self._failures:
            raise self._error


async def read(database: Database, response_id: str) -> Run:
    run_id = parse_response_id(response_id)
    assert run_id is not None
    found = await database.run(lambda c: runs.read(c, run_id, "anonymous"))
    assert found is not None
    return found


async def until_waiting(database: Database, response_id: str) -> None:
    async def waits() -> bool:
        run = await read(database, response_id)
        return run.status == "queued" and run.retries == 1

    await until(waits)


async def until_ended(service: Service, response_id: str) -> Any:
    async def ended() -> Any:
        response = await service.openai.responses.retrieve(response_id)
        return response if response.status not in ("queued", "in_progress") else None

    return await until(ended)


async def test_a_run_that_fails_for_now_is_tried_again_until_it_succeeds(brief: Settings, database: Database) -> None:
    flaky = Flaky(failures=3)
    async with (
        serving(brief, {"flaky": flaky.__call__}) as service,
        service.openai.responses.stream(input="hi", model="flaky") as stream,
    ):
        seen = [event async for event in stream]
        response: Any = await stream.get_final_response()

    assert flaky.attempts == [1, 2, 3, 4]
    assert (response.status, response.output_text, response.attempt_number) == ("completed", "attempt 4", 4)
    events = check_stream(await stored_lines(database, response.id))
    assert [event["sequence_number"] for event in events] == [event.sequence_number for event in seen]
    marks = [event["outlast"] for event in events if "outlast" in event]
    assert [mark["attempt"] for mark in marks] == [2, 3, 4]
    assert all(len(mark["superseded"]) == 1 for mark in marks)
    run = await read(database, response.id)
    assert (run.retries, run.charged_attempts, run.last_cause) == (3, 0, "ConnectionResetError")


async def test_a_function_agent_goes_on_from_what_it_has_saved(brief: Settings, database: Database) -> None:
    async def agent(_request: Request, context: Context):
        if "half" not in context.saved:
            yield "The first half"
            await context.save(half=True)
            yield " is taken back"
            raise Retry
        yield " and the second."

    async with serving(brief, {"agent": agent}) as service:
        response = await service.openai.responses.create(input="hi")

    assert (response.status, summary(response)) == ("completed", ["The first half", " and the second."])
    check_stream(await stored_lines(database, response.id))


async def test_a_run_whose_retries_are_spent_fails_and_says_so(brief: Settings, database: Database) -> None:
    flaky = Flaky(failures=9)
    fewer = brief.model_copy(update={"max_retries": {"flaky": 2}})
    async with serving(fewer, {"flaky": flaky.__call__}) as service:
        response = await service.openai.responses.create(input="hi")

    assert flaky.attempts == [1, 2, 3]
    assert response.status == "failed"
    assert response.error is not None
    assert response.error.code == "agent_error"
    assert response.error.message == "The agent failed with ConnectionResetError, also after 2 retries."
    lines = await stored_lines(database, response.id)
    assert SECRET not in "".join(lines)
    check_stream(lines)


@pytest.mark.parametrize(
    ("error", "retries"),
    [(ValueError(SECRET), 3), (ConnectionResetError(SECRET), 0), (Retry(after=3600), 3)],
)
async def test_what_will_not_pass_may_not_be_tried_or_not_in_time_fails_at_once(
    brief: Settings, error: Exception, retries: int
) -> None:
    flaky = Flaky(failures=9, error=error)
    limited = brief.model_copy(update={"max_retries": {"*": retries}})
    async with serving(limited, {"flaky": flaky.__call__}) as service:
        response = await service.openai.responses.create(input="hi")

    assert flaky.attempts == [1]
    assert response.error is not None
    assert response.error.message == f"The agent failed with {type(error).__name__}."


async def test_a_run_that_waits_holds_no_slot_and_keeps_its_thread(settings: Settings, database: Database) -> None:
    order: list[str] = []

    async def agent(request: Request, context: Context):
        order.append(f"{request.text} {context.attempt}")
        if request.text == "first" and context.attempt == 1:
            raise Retry(after=1)
        yield request.text

    narrow = settings.model_copy(update={"concurrency": 1})
    async with serving(narrow, {"agent": agent}) as service:
        create = service.openai.responses.create
        first = await create(input="first", background=True, conversation="conv_t")
        await until_waiting(database, first.id)
        second = await create(input="second", background=True, conversation="conv_t")
        other = await create(input="other")
        assert other.status == "completed"
        assert (await service.openai.responses.retrieve(first.id)).status == "queued"
        await until_ended(service, second.id)

    assert order == ["first 1", "other 1", "first 2", "second 1"]


async def test_a_run_that_waits_can_be_cancelled(settings: Settings, database: Database) -> None:
    flaky = Flaky(failures=9, error=Retry(after=30))
    async with serving(settings, {"flaky": flaky.__call__}) as service:
        response = await service.openai.responses.create(input="hi", background=True)
        await until_waiting(database, response.id)

        await service.openai.responses.cancel(response.id)
        ended = await until_ended(service, response.id)

    assert (ended.status, flaky.attempts) == ("cancelled", [1])
    check_stream(await stored_lines(database, response.id))


async def test_failing_because_of_being_stopped_is_no_retry(settings: Settings, database: Database) -> None:
    speaking = asyncio.Event()

    async def agent(_request: Request, context: Context):
        try:
            yield f"attempt {context.attempt}"
            if context.attempt == 1:
                speaking.set()
                await asyncio.Event().wait()
        except asyncio.CancelledError:
            raise ConnectionResetError from None

    async with serving(settings, {"agent": agent}) as service:
        response = await service.openai.responses.create(input="hi", background=True)
        await asyncio.wait_for(speaking.wait(), 20)
    run = await read(database, response.id)

    assert (run.status, run.retries, run.last_cause) == ("queued", 0, "worker_drained")


async def test_metrics_count_retries(brief: Settings, database: Database) -> None:
    async with serving(brief, {"flaky": Flaky(failures=2).__call__}) as service:
        await service.openai.responses.create(input="hi")

        async def reported() -> bool:
            found = await database.run(
                lambda c: overview.read(c, submitted_seconds=60, beat_seconds=brief.beat_seconds)
            )
            return [worker.counters.get("runs_retried") for worker in found.workers] == [2]

        await until(reported)


# -- graphs ------------------------------------------------------------------------------------------------------------


async def test_finished_branches_are_kept_and_only_the_failed_one_runs_again(
    brief: Settings, database: Database
) -> None:
    ran: list[str] = []

    async def quick_is_stored() -> bool:
        cursor = await database.run(
            lambda c: c.execute("SELECT FROM checkpoint_writes WHERE task_path LIKE '%%quick%%' LIMIT 1")
        )
        return cursor.rowcount == 1

    async def before(state: Conversation) -> dict[str, Any]:
        ran.append("before")
        return {"messages": [AIMessage("Before.")]}

    async def quick(state: Conversation) -> dict[str, Any]:
        ran.append("quick")
        return {"messages": [AIMessage("Quick.")]}

    async def failing(state: Conversation) -> dict[str, Any]:
        ran.append("failing")
        await until(quick_is_stored)
        if ran.count("failing") < 3:
            raise ConnectionError(SECRET)
        return {"messages": [AIMessage("At last.")]}

    graph = StateGraph(Conversation).add_node("before", before).add_node("quick", quick).add_node("failing", failing)
    graph.add_edge(START, "before").add_edge("before", "quick").add_edge("before", "failing")
    async with serving(brief, {"graph": graph}) as service:
        response = await service.openai.responses.create(input="hi")

    assert Counter(ran) == {"before": 1, "quick": 1, "failing": 3}
    assert sorted(summary(response)) == ["At last.", "Before.", "Quick."]
    check_stream(await stored_lines(database, response.id))


async def test_a_tool_that_fails_for_now_is_called_again_and_the_model_is_not(
    brief: Settings, database: Database
) -> None:
    called = 0

    @tool
    def look_up() -> str:
        """Look it up."""
        nonlocal called
        called += 1
        if called < 3:
            raise TimeoutError(SECRET)
        return "found"

    def answer(messages: Sequence[BaseMessage], _options: dict[str, Any]) -> AIMessage:
        if results := tool_results(messages):
            return AIMessage(f"I was told {results[0]}.")
        return AIMessage("Let me see.", tool_calls=[call("look_up", "c1")])

    model = RuleModel(answer=answer)
    async with serving(brief, {"graph": calling(model, look_up)}) as service:
        response = await service.openai.responses.create(input="hi")

    assert (called, len(model.calls)) == (3, 2)
    assert summary(response) == ["Let me see.", "look_up({}) -> found", "I was told found."]
    check_stream(await stored_lines(database, response.id))


async def test_of_the_tools_that_a_model_calls_at_once_only_the_failed_one_is_called_again(
    brief: Settings, database: Database
) -> None:
    called: list[str] = []

    async def the_other_is_stored() -> bool:
        cursor = await database.run(
            lambda c: c.execute("SELECT FROM checkpoint_writes WHERE task_path LIKE '%%pregel_push%%' LIMIT 1")
        )
        return cursor.rowcount == 1

    @tool
    async def steady() -> str:
        """Works."""
        called.append("steady")
        return "steady"

    @tool
    async def flaky() -> str:
        """Works the second time."""
        called.append("flaky")
        if called.count("flaky") == 1:
            await until(the_other_is_stored)
            raise ConnectionError(SECRET)
        return "flaky"

    def answer(messages: Sequence[BaseMessage], _options: dict[str, Any]) -> AIMessage:
        if results := tool_results(messages):
            return AIMessage(" and ".join(sorted(results)))
        return AIMessage("", tool_calls=[call("steady", "c1"), call("flaky", "c2")])

    async with serving(brief, {"graph": create_agent(RuleModel(answer=answer), [steady, flaky])}) as service:
        response = await service.openai.responses.create(input="hi")

    assert Counter(called) == {"steady": 1, "flaky": 2}
    assert sorted(summary(response)) == ["flaky and steady", "flaky({}) -> flaky", "steady({}) -> steady"]
    check_stream(await stored_lines(database, response.id))


@pytest.mark.parametrize("durability", ["sync", "async", "exit"])
async def test_the_steps_before_the_failed_one_are_kept_in_every_durability(
    brief: Settings, database: Database, durability: str
) -> None:
    ran: list[str] = []

    async def before(state: Conversation) -> dict[str, Any]:
        ran.append("before")
        return {"messages": [AIMessage("Before.")]}

    async def failing(state: Conversation) -> dict[str, Any]:
        ran.append("failing")
        if ran.count("failing") < 3:
            raise ConnectionError(SECRET)
        return {"messages": [AIMessage("At last.")]}

    graph = StateGraph(Conversation).add_node("before", before).add_node("failing", failing)
    graph.add_edge(START, "before").add_edge("before", "failing")
    async with serving(brief, {"graph": graph}) as service:
        response = await service.openai.responses.create(input="hi", extra_body={"durability": durability})

    assert Counter(ran) == {"before": 1, "failing": 3}
    assert summary(response) == ["Before.", "At last."]
    check_stream(await stored_lines(database, response.id))
