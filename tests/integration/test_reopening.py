"""Runs that have ended and that an operator has tried again: their end is withdrawn, and they go on."""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import Callable
from typing import Any
from uuid import UUID

import httpx
import pytest
from langchain_core.messages import AIMessage
from langchain_core.tools import tool
from langgraph.graph import START, StateGraph

from outlast.agent import AgentError, Context, Request, Retry, State, Usage
from outlast.api.tail import StreamCut
from outlast.shared.connections import Database
from outlast.shared.domain.ids import parse_response_id
from outlast.shared.domain.operating import RetryRefusal, RunState
from outlast.shared.domain.runs import Run, RunStatus
from outlast.shared.settings import Settings
from outlast.shared.store import events, leases, operating, runs, steering
from tests.support.adder import summary
from tests.support.graphs import Conversation, RuleModel, call, calling, tool_results
from tests.support.log import check_log, data_lines, stored_lines, streamed
from tests.support.runs import an_append, append, claimed_one, finish, submitted
from tests.support.service import Service, serving
from tests.support.streams import check_stream
from tests.support.waiting import until

STEPS = ("one", "two", "three", "four")


def id_of(response_id: str) -> UUID:
    run_id = parse_response_id(response_id)
    assert run_id is not None
    return run_id


async def retried(database: Database, response_id: str) -> str | RetryRefusal:
    return await database.run(lambda c: steering.retry(c, id_of(response_id)), patience_seconds=0)


async def state_of(database: Database, response_id: str) -> RunState:
    found = await database.run(lambda c: operating.state(c, id_of(response_id)))
    assert found is not None
    return found


async def ended(service: Service, response_id: str) -> Any:
    async def found() -> Any:
        response = await service.openai.responses.retrieve(response_id)
        return None if response.status in ("queued", "in_progress") else response

    return await until(found)


class Mended:
    """A graph of four steps, the third of which fails until it has been mended."""

    def __init__(self) -> None:
        self.begun: list[str] = []
        self.broken = True
        self.gate = asyncio.Event()

    @property
    def graph(self) -> Any:
        graph = StateGraph(Conversation)
        for name in STEPS:
            graph.add_node(name, self.node(name))
        graph.add_edge(START, STEPS[0])
        for before, after in itertools.pairwise(STEPS):
            graph.add_edge(before, after)
        return graph

    def node(self, name: str) -> Any:
        model = RuleModel(answer=lambda _messages, _options: AIMessage(f"I am {name}."))

        async def node(state: Conversation) -> dict[str, Any]:
            self.begun.append(name)
            message = await model.ainvoke(state["messages"])
            if name == "three" and self.broken:
                raise ValueError("broken")
            if name == "four":
                await self.gate.wait()
            return {"messages": [message]}

        return node


@pytest.mark.parametrize("durability", ["sync", "async", "exit"])
async def test_a_graph_that_failed_in_its_third_step_is_retried_from_that_step(
    settings: Settings, database: Database, durability: str
) -> None:
    mended = Mended()
    async with serving(settings, {"mended": mended.graph}) as service:
        failed = await service.openai.responses.create(input="go", extra_body={"durability": durability})
        assert (failed.status, mended.begun) == ("failed", ["one", "two", "three"])
        before = check_log(await stored_lines(database, failed.id))

        mended.broken = False
        assert await retried(database, failed.id) == "default"
        [*_, withdrawn] = before
        kept = await stored_lines(database, failed.id)
        assert withdrawn["type"] == "response.failed" and len(kept) == len(before) - 1
        await holds(lambda: "four" in mended.begun)
        following = asyncio.create_task(streamed(service.url, failed.id))
        assert (await service.openai.responses.retrieve(failed.id)).status == "in_progress"
        mended.gate.set()
        response = await ended(service, failed.id)
        followed = data_lines(await following)

    assert mended.begun == ["one", "two", "three", "three", "four"], "finished steps were not repeated"
    assert (response.status, response.error, response.attempt_number) == ("completed", None, 2)
    assert summary(response) == [f"I am {name}." for name in STEPS]
    lines = await stored_lines(database, failed.id)
    assert followed == lines and lines[: len(kept)] == kept
    marks = [event["outlast"] for event in check_stream(lines) if "outlast" in event]
    assert [(mark["attempt"], len(mark["superseded"])) for mark in marks] == [(2, 1)]


async def holds(condition: Callable[[], bool]) -> None:
    async def found() -> bool:
        return condition()

    await until(found)


async def test_a_tool_call_that_the_failure_left_open_is_said_once_in_the_end(
    settings: Settings, database: Database
) -> None:
    tries = 0

    @tool
    def weather(city: str) -> str:
        """The weather."""
        nonlocal tries
        tries += 1
        if tries == 1:
            raise ValueError("not yet")
        return "sunny"

    def answer(messages: Any, _options: Any) -> AIMessage:
        results = tool_results(messages)
        return (
            AIMessage(f"It is {results[0]}.")
            if results
            else AIMessage("", tool_calls=[call("weather", "c1", city="Oslo")])
        )

    async with serving(settings, {"asks": calling(RuleModel(answer=answer), weather)}) as service:
        failed = await service.openai.responses.create(input="go")
        assert failed.status == "failed"
        assert await retried(database, failed.id) == "default"
        response = await ended(service, failed.id)
    check_stream(await stored_lines(database, failed.id))
    assert response.status == "completed" and tries == 2
    told = [(item.type, getattr(item, "output", None)) for item in response.output]
    assert told == [("mcp_call", "sunny"), ("message", None)]


async def test_a_function_agent_goes_on_from_what_it_had_saved(settings: Settings, database: Database) -> None:
    attempts: list[tuple[int, dict[str, Any]]] = []

    async def agent(_request: Request, context: Context):
        attempts.append((context.attempt, dict(context.saved)))
        yield Usage(10, 1)
        if "half" not in context.saved:
            yield "The first half"
            yield State({"half": 1})
            await context.save(half=True)
            yield " is taken back"
            raise AgentError("broken", code="mine")
        yield " and the second."

    async with serving(settings, {"agent": agent}) as service:
        failed: Any = await service.openai.responses.create(input="hi")
        assert (failed.status, failed.error.code) == ("failed", "mine")
        assert await retried(database, failed.id) == "default"
        response = await ended(service, failed.id)

    assert attempts == [(1, {}), (2, {"half": True})]
    assert (response.status, summary(response)) == ("completed", ["The first half", " and the second."])
    assert response.usage.input_tokens == 20 and response.custom_outputs == {"half": 1}
    check_stream(await stored_lines(database, failed.id))


async def test_limits_on_attempts_retries_and_time_count_from_the_retry(settings: Settings, database: Database) -> None:
    """A run that was given up after as many attempts and retries as there may be gets as many again."""
    strict = settings.model_copy(update={"max_attempts": 1, "max_retries": {"*": 1}, "retry_seconds": 0.01})
    tries: list[int] = []

    async def agent(_request: Request, context: Context):
        tries.append(context.attempt)
        yield f"attempt {context.attempt}"
        if context.attempt < 6:
            raise Retry

    async with serving(strict, {"test": agent}, workers=0) as service:
        given = await service.openai.responses.create(input="hi", background=True)
        run = await claimed_one(database)
        lease = [runs.Lease(run.run_id, run.attempt)]
        await database.run(lambda c: leases.release(c, lease, cause="child_killed_by_signal_9", charge=True))
        async with serving(strict, {"test": agent}):
            failed = await ended(service, given.id)
            assert (failed.error.code, tries) == ("max_attempts_exceeded", [])
            assert await retried(database, given.id) == "default"
            again = await ended(service, given.id)
            assert (again.status, tries) == ("failed", [3, 4])
            assert await retried(database, given.id) == "default"
            again = await ended(service, given.id)
            assert (again.status, tries) == ("completed", [3, 4, 5, 6])
    state = await state_of(database, given.id)
    assert (state.charged_attempts, state.forgiven_attempts, state.reopened) == (0, 4, 2)
    check_stream(await stored_lines(database, given.id))


async def test_of_two_retries_at_once_one_wins(settings: Settings, database: Database) -> None:
    async def agent(_request: Request, context: Context):
        yield "x"
        if context.attempt == 1:
            raise AgentError("broken")

    async with serving(settings, {"test": agent}) as service:
        for _ in range(5):
            failed = await service.openai.responses.create(input="hi")
            outcomes = await asyncio.gather(*(retried(database, failed.id) for _ in range(4)))
            assert outcomes.count("default") == 1
            assert set(outcomes) <= {"default", RetryRefusal.ACTIVE, RetryRefusal.SUCCEEDED}
            assert (await ended(service, failed.id)).status == "completed"
            check_stream(await stored_lines(database, failed.id))
            assert (await state_of(database, failed.id)).reopened == 1


async def test_a_viewer_that_comes_after_a_retry_follows_the_new_attempt(
    settings: Settings, database: Database
) -> None:
    """Also at a replica that has just served the old end and still has it in memory."""
    gate = asyncio.Event()

    async def agent(_request: Request, context: Context):
        yield f"attempt {context.attempt}"
        if context.attempt == 1:
            raise AgentError("broken")
        await gate.wait()

    async with serving(settings, {"test": agent}) as service, httpx.AsyncClient(timeout=20) as http:
        first = data_lines((await http.post(f"{service.url}/responses", json={"input": "hi", "stream": True})).content)
        failed = json.loads(first[-1])
        assert failed["type"] == "response.failed"
        response_id = failed["response"]["id"]
        hub = service.replicas[0].services.tail._hubs[id_of(response_id)]
        assert hub.closed

        assert await retried(database, response_id) == "default"
        following = [
            asyncio.create_task(streamed(service.url, response_id, query)) for query in ("", "&starting_after=3")
        ]
        waiting = asyncio.create_task(http.get(f"{service.url}/responses/{response_id}?wait=20"))
        await holds(lambda: service.replicas[0].services.tail._hubs[id_of(response_id)] is not hub)
        gate.set()
        whole, rest = [data_lines(await task) for task in following]
        assert (await waiting).json()["status"] == "completed"

    lines = await stored_lines(database, response_id)
    check_stream(lines)
    assert whole == lines and rest == lines[4:]


async def test_a_slow_viewer_of_the_old_end_is_not_told_that_it_has_all(settings: Settings, database: Database) -> None:
    """It reads the log where the end was withdrawn meanwhile: its stream is aborted, and its client goes on anew."""
    gate = asyncio.Event()

    async def agent(_request: Request, context: Context):
        yield f"attempt {context.attempt}"
        if context.attempt == 1:
            raise AgentError("broken")
        await gate.wait()

    async with serving(settings, {"test": agent}) as service:
        tail = service.replicas[0].services.tail
        failed = await service.openai.responses.create(input="hi")
        old = len(await stored_lines(database, failed.id))
        async with tail.viewing(await read(database, failed.id), -1) as viewer:
            await holds(lambda: viewer.hub.closed)
            while viewer.hub.frames:
                viewer.hub._drop_first()  # as after a long log
            await retried(database, failed.id)

            async def grown() -> bool:
                return len(await stored_lines(database, failed.id)) > old

            await until(grown)
            with pytest.raises(StreamCut):
                assert not (await tail.read(viewer)).ended
        gate.set()
        await ended(service, failed.id)


async def read(database: Database, response_id: str) -> Run:
    found = await database.run(lambda c: runs.read(c, id_of(response_id), "anonymous"))
    assert found is not None
    return found


@pytest.mark.parametrize("compacted", [False, True])
@pytest.mark.parametrize("last", [1, 3])
async def test_the_end_is_cut_off_however_the_log_is_stored(database: Database, compacted: bool, last: int) -> None:
    """As a row of its own, at the end of a row, or after a log that has been compacted into one."""
    await submitted(database)
    run = await claimed_one(database)
    await append(database, an_append(run, 2, 3))
    if last > 1:
        await append(database, an_append(run, 5, last - 1))
    assert await finish(database, run, 4 + last, status=RunStatus.FAILED)
    before = await database.run(lambda c: events.read_all(c, run.run_id))
    if compacted:
        assert await database.run(lambda c: events.compact(c, run.run_id)) == 1

    assert await database.run(lambda c: steering.retry(c, run.run_id)) == "default"

    assert await database.run(lambda c: events.read_all(c, run.run_id)) == before[:-1]
    again = await claimed_one(database)
    assert (again.attempt, again.last_seq, again.forgiven_attempts) == (2, len(before) - 2, 1)
    assert await append(database, an_append(again, len(before) - 1))
    assert not await append(database, an_append(run, len(before))), "the first attempt stays fenced off"
    await database.run(lambda c: events.compact(c, run.run_id))
    assert len(await database.run(lambda c: events.read_all(c, run.run_id))) == len(before)
    assert await finish(database, again, len(before))


async def test_what_cannot_be_retried_stays_as_it_is(database: Database) -> None:
    async def refusal(run: Any) -> Any:
        return await database.run(lambda c: steering.retry(c, run.run_id))

    waiting = await submitted(database, thread="t")
    assert await refusal(waiting) is RetryRefusal.ACTIVE
    first = await claimed_one(database)
    assert await refusal(first) is RetryRefusal.ACTIVE
    later = await submitted(database, thread="t")
    await finish(database, first, 2, status=RunStatus.FAILED)
    assert await refusal(first) is RetryRefusal.THREAD_BUSY
    second = await claimed_one(database)
    assert second.run_id == later.run_id and await refusal(first) is RetryRefusal.THREAD_BUSY
    await finish(database, second, 2)
    assert await refusal(first) is RetryRefusal.THREAD_MOVED_ON
    assert await refusal(second) is RetryRefusal.SUCCEEDED
    other = await submitted(database)
    run = await claimed_one(database)
    await finish(database, run, 2, status=RunStatus.CANCELLED)
    await database.run(lambda c: c.execute("DELETE FROM run_events WHERE run_id = %s", (run.run_id,)))
    assert await refusal(other) is RetryRefusal.EVENTS_GONE
    await database.run(lambda c: runs.delete(c, run.run_id, run.principal))
    assert await refusal(other) is RetryRefusal.NOT_FOUND
    assert (await read_state(database, first.run_id)).status is RunStatus.FAILED


async def read_state(database: Database, run_id: UUID) -> RunState:
    found = await database.run(lambda c: operating.state(c, run_id))
    assert found is not None
    return found


async def test_a_run_that_was_cancelled_before_it_began_begins_as_if_it_were_new(
    settings: Settings, database: Database
) -> None:
    async def agent(request: Request, context: Context):
        yield f"{request.text} {context.attempt}"

    async with serving(settings, {"test": agent}, workers=0) as service:
        given = await service.openai.responses.create(input="hi", background=True)
        assert (await service.openai.responses.cancel(given.id)).status == "cancelled"
        assert await retried(database, given.id) == "default"
        queued = await service.openai.responses.retrieve(given.id)
        assert queued.status == "queued" and (await state_of(database, given.id)).deadline_at is None
        async with serving(settings, {"test": agent}):
            assert (await ended(service, given.id)).output_text == "hi 1"
    check_stream(await stored_lines(database, given.id))


async def test_a_thousand_retried_runs_do_not_go_ahead_of_others(database: Database) -> None:
    """Each gets a turn as if it had been submitted now."""
    old = [await submitted(database, principal="busy") for _ in range(5)]
    for _ in old:
        run = await claimed_one(database)
        await finish(database, run, 2, status=RunStatus.FAILED)
    for _ in range(3):
        await submitted(database, principal="patient")
    later = "UPDATE runs SET turn = turn + 100 WHERE principal = 'patient'"  # the queue has gone on since
    await database.run(lambda c: c.execute(later))
    for submission in old:
        await database.run(lambda c: steering.retry(c, submission.run_id))
    order = [(await claimed_one(database)).principal for _ in range(8)]
    assert order[:6].count("patient") == 3
