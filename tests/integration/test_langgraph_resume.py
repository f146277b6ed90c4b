"""Graphs that change workers: drained or lost, with each durability, and with calls that the client has to answer."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Sequence
from typing import Any

import openai
import pytest
from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.tools import tool
from langgraph.graph import START, StateGraph

from outlast.agent import idempotency_key
from outlast.shared.connections import Database
from outlast.shared.domain.errors import LeaseLost
from outlast.shared.domain.ids import parse_response_id
from outlast.shared.domain.runs import Durability, Lease
from outlast.shared.settings import Settings
from outlast.shared.store import sweeping
from outlast.worker.attempt import Stop
from tests.support.adder import summary
from tests.support.graphs import Conversation, RuleModel, call, calling, function, last_human, tool_results
from tests.support.log import check_log, stored_lines
from tests.support.runs import take_first_attempts_over
from tests.support.service import Service, serving, worker
from tests.support.waiting import until

STEPS = ("one", "two", "three", "four")


class Stepping:
    """A graph of steps that are counted, each of which waits until it may end."""

    def __init__(self, *gated: str) -> None:
        self.begun: list[str] = []
        self.gates = {name: asyncio.Event() for name in STEPS}
        for name in set(STEPS) - set(gated):
            self.gates[name].set()

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
            await self.gates[name].wait()
            return {"messages": [message]}

        return node

    async def has_begun(self, name: str, times: int = 1) -> None:
        async def begun() -> bool:
            return self.begun.count(name) == times

        await until(begun)


async def ended(client: openai.AsyncOpenAI, run: str) -> Any:
    async def found() -> Any:
        response = await client.responses.retrieve(run)
        return None if response.status in ("queued", "in_progress") else response

    return await until(found)


async def submit(service: Service, **request: Any) -> str:
    given: dict[str, Any] = {"input": "go", "background": True} | request
    return (await service.openai.responses.create(**given)).id


async def checkpoints(database: Database) -> int:
    cursor = await database.run(lambda c: c.execute("SELECT count(*) FROM checkpoints"))
    row = await cursor.fetchone()
    assert row is not None
    return row[0]


@pytest.mark.parametrize("durability", ["sync", "async", "exit"])
async def test_a_drained_graph_ends_its_step_and_goes_on_elsewhere_with_the_next(
    settings: Settings, database: Database, durability: str
) -> None:
    steps = Stepping("two")
    patient = settings.model_copy(update={"drain_seconds": 20.0})
    async with serving(patient, {"steps": steps.graph}, workers=0) as service:
        async with worker(patient, {"steps": steps.graph}) as first:
            run = await submit(service, extra_body={"durability": durability})
            await steps.has_begun("two")
            draining = asyncio.create_task(first.dispatcher.drain())
            async with worker(patient, {"steps": steps.graph}):
                steps.gates["two"].set()
                await draining
                response = await ended(service.openai, run)
        events = check_log(await stored_lines(database, run))

    assert steps.begun == list(STEPS), "no step was repeated"
    assert (response.status, response.attempt_number) == ("completed", 2)
    assert summary(response) == [f"I am {name}." for name in STEPS]
    assert [event["outlast"] for event in events if "outlast" in event] == [{"attempt": 2, "superseded": []}]


async def test_a_graph_that_does_not_end_its_step_in_time_is_let_go_all_the_same(
    settings: Settings, database: Database
) -> None:
    steps = Stepping("two")
    async with serving(settings, {"steps": steps.graph}, workers=0) as service:
        async with worker(settings, {"steps": steps.graph}) as first:
            run = await submit(service)
            await steps.has_begun("two")
            await first.dispatcher.drain()
            assert (await service.openai.responses.retrieve(run)).status == "queued"
        async with worker(settings, {"steps": steps.graph}):
            await steps.has_begun("two", times=2)
            steps.gates["two"].set()
            response = await ended(service.openai, run)
        check_log(await stored_lines(database, run))

    assert steps.begun == ["one", "two", "two", "three", "four"]
    assert summary(response) == [f"I am {name}." for name in STEPS]


async def test_a_second_signal_ends_the_wait(settings: Settings) -> None:
    steps = Stepping("one")
    patient = settings.model_copy(update={"drain_seconds": 3600.0})
    async with (
        serving(patient, {"steps": steps.graph}, workers=0) as service,
        worker(patient, {"steps": steps.graph}) as first,
    ):
        run = await submit(service)
        await steps.has_begun("one")
        draining = asyncio.create_task(first.dispatcher.drain())
        first.dispatcher.hurry()
        await draining
        assert (await service.openai.responses.retrieve(run)).status == "queued"


@pytest.mark.parametrize(
    ("durability", "again", "written"), [("sync", ["three"], 6), ("async", ["three"], 6), ("exit", list(STEPS[:3]), 1)]
)
async def test_a_lost_graph_repeats_what_its_durability_had_not_kept(
    settings: Settings, database: Database, durability: str, again: list[str], written: int
) -> None:
    steps = Stepping("three")
    exiting = settings.model_copy(update={"durability": {"steps": Durability(durability)}})
    async with serving(exiting, {"steps": steps.graph}) as service:
        run = await submit(service)
        await steps.has_begun("three")
        await take_first_attempts_over(database)
        await steps.has_begun("three", times=2)
        steps.gates["three"].set()
        response = await ended(service.openai, run)
        events = check_log(await stored_lines(database, run))

    assert steps.begun == ["one", "two", "three", *again, "four"]
    assert summary(response) == [f"I am {name}." for name in STEPS]
    taken_back = next(event["outlast"]["superseded"] for event in events if "outlast" in event)
    assert len(taken_back) == len(again)
    assert await checkpoints(database) == written


async def take_over(database: Database) -> None:
    """As if the run's lease had ended."""
    connection = await database.connect()
    async with connection, connection.transaction():
        await connection.execute("UPDATE run_leases SET lease_until = now() - interval '1 hour'")
        assert await sweeping.take_back_expired(connection)


async def test_a_branch_that_had_failed_before_it_ended_is_part_of_the_answer(
    settings: Settings, database: Database
) -> None:
    steps = Stepping("three")
    tried = itertools.count(1)

    async def two(state: Conversation) -> dict[str, Any]:
        said = await steps.node("two")(state)
        if next(tried) == 1:
            raise LeaseLost  # LangGraph keeps the error, and beside it what the second attempt returns
        return said

    graph = StateGraph(Conversation).add_node("two", two).add_node("three", steps.node("three"))
    graph.add_edge(START, "two").add_edge(START, "three")
    async with serving(settings, {"graph": graph}) as service:
        run = await submit(service)
        await steps.has_begun("three")
        await until_kept(database, "__error__")
        await steps.has_begun("three", times=2)  # the worker has handed it back
        await until_kept(database, "messages")
        await take_over(database)
        await steps.has_begun("three", times=3)
        steps.gates["three"].set()
        response = await ended(service.openai, run)

    assert steps.begun.count("two") == 2
    assert sorted(summary(response)) == ["I am three.", "I am two."]


async def test_a_step_suspended_before_its_words_are_stored_is_not_taken_for_finished(
    settings: Settings, database: Database
) -> None:
    steps = Stepping("three")
    may_speak, has_spoken = asyncio.Event(), asyncio.Event()

    async def two(state: Conversation) -> dict[str, Any]:
        await may_speak.wait()
        said = await steps.node("two")(state)
        has_spoken.set()
        return said

    graph = StateGraph(Conversation).add_node("two", two).add_node("three", steps.node("three"))
    graph.add_edge(START, "two").add_edge(START, "three")
    async with serving(settings, {"graph": graph}) as service:
        run = await submit(service)
        await steps.has_begun("three")
        run_id = parse_response_id(run)
        assert run_id is not None
        connection = await database.connect()
        async with connection, connection.transaction():
            await connection.execute("SELECT FROM run_heads FOR UPDATE")  # the log takes nothing
            may_speak.set()
            await has_spoken.wait()
            await until_waiting(database)
            service.workers[0].stop(Lease(run_id, 1), Stop.LOST)
            await until_kept(database, "__error__")
        await steps.has_begun("three", times=2)
        steps.gates["three"].set()
        response = await ended(service.openai, run)

    assert steps.begun.count("two") == 2
    assert sorted(summary(response)) == ["I am three.", "I am two."]


async def until_waiting(database: Database) -> None:
    """Until somebody waits for a lock."""

    async def waiting() -> bool:
        cursor = await database.run(lambda c: c.execute("SELECT 1 FROM pg_locks WHERE NOT granted"))
        return await cursor.fetchone() is not None

    await until(waiting)


async def until_kept(database: Database, channel: str) -> None:
    """Until a step has written this beside the checkpoint that all branches begin with."""

    async def kept() -> bool:
        query = "SELECT 1 FROM checkpoint_writes WHERE channel = %s AND task_path LIKE '%%two'"
        cursor = await database.run(lambda c: c.execute(query, (channel,)))
        return await cursor.fetchone() is not None

    await until(kept)


# -- calls that the client has to answer -------------------------------------------------------------------------------


def weather(messages: Sequence[BaseMessage], options: dict[str, Any]) -> AIMessage:
    if results := tool_results(messages):
        return AIMessage(f"I was told {', '.join(results)}.")
    return AIMessage("Let me ask.", tool_calls=[call("get_weather", "call_w", city=last_human(messages))])


@tool
def other() -> str:
    """Has nothing to do here."""
    return "nothing"


async def lost_before_its_end(service: Service, database: Database, run: str, model: RuleModel) -> None:
    """The run's worker is lost when the step of the call is kept, and before the end of the run is."""
    connection = await database.connect()
    async with connection, connection.transaction():
        await connection.execute("SELECT FROM threads FOR UPDATE")  # whoever ends the run waits for it

        async def asked() -> bool:
            cursor = await connection.execute("SELECT count(*) FROM checkpoints")
            row = await cursor.fetchone()
            return bool(model.calls) and row is not None and row[0] >= 3

        await until(asked)
        await connection.execute("UPDATE run_leases SET lease_until = now() - interval '1 hour'")
        assert await sweeping.take_back_expired(connection) == [parse_response_id(run)]


async def test_a_call_for_the_client_is_made_once_however_late_the_worker_is_lost(
    settings: Settings, database: Database
) -> None:
    model = RuleModel(answer=weather)
    offered: Any = [function("get_weather")]
    async with serving(settings, {"graph": calling(model, other)}) as service:
        run = await submit(service, input="Rome", tools=offered)
        await lost_before_its_end(service, database, run, model)
        response = await ended(service.openai, run)
        answer: Any = [{"type": "function_call_output", "call_id": response.output[-1].call_id, "output": "sun"}]
        final = await service.openai.responses.create(input=answer, previous_response_id=run, tools=offered)
        check_log(await stored_lines(database, run))

    assert response.attempt_number == 2
    assert summary(response) == ["Let me ask.", 'function_call get_weather({"city":"Rome"}) call_w']
    assert summary(final) == ["I was told sun."]
    assert len(model.calls) == 2, "the model was not asked again"


async def test_a_branch_beside_a_call_for_the_client_is_finished_by_the_next_attempt(
    settings: Settings, database: Database
) -> None:
    model, beside = RuleModel(answer=weather), Stepping("one")
    graph = calling(model, other)
    graph.add_node("beside", beside.node("one"))
    graph.add_node("never", beside.node("two"))
    graph.add_edge(START, "beside").add_edge("beside", "never")
    offered: Any = [function("get_weather")]
    async with serving(settings, {"graph": graph}) as service:
        run = await submit(service, input="Rome", tools=offered)
        await beside.has_begun("one")

        async def branch_is_kept() -> bool:
            cursor = await database.run(lambda c: c.execute("SELECT channel, task_path FROM checkpoint_writes"))
            return any(channel == "messages" and "agent" in path for channel, path in await cursor.fetchall())

        await until(branch_is_kept)
        await take_first_attempts_over(database)
        await beside.has_begun("one", times=2)
        beside.gates["one"].set()
        response = await ended(service.openai, run)
        check_log(await stored_lines(database, run))

    assert sorted(summary(response)) == sorted(
        ["Let me ask.", "I am one.", 'function_call get_weather({"city":"Rome"}) call_w']
    )
    assert len(model.calls) == 1 and beside.begun == ["one", "one"]


async def test_a_tool_has_the_same_key_in_every_attempt(settings: Settings, database: Database) -> None:
    keys: list[tuple[str, str]] = []
    gate = asyncio.Event()

    @tool
    async def charge(amount: int) -> str:
        """Charge an amount."""
        keys.append(("async", idempotency_key()))
        await gate.wait()
        return f"charged {amount}"

    @tool
    def note(amount: int) -> str:
        """Note an amount."""
        keys.append(("sync", idempotency_key()))
        return f"noted {amount}"

    def rule(messages: Sequence[BaseMessage], options: dict[str, Any]) -> AIMessage:
        if tool_results(messages):
            return AIMessage("Done.")
        return AIMessage("", tool_calls=[call("charge", "call_1", amount=1), call("note", "call_2", amount=2)])

    graph = calling(RuleModel(answer=rule), charge, note)
    async with serving(settings, {"graph": graph}) as service:
        run = await submit(service)

        async def both(times: int) -> bool:
            return len(keys) == 2 * times

        await until(lambda: both(1))
        await take_first_attempts_over(database)
        await until(lambda: both(2))
        gate.set()
        response = await ended(service.openai, run)

    first, second = set(keys[:2]), set(keys[2:])
    assert first == second and len({key for _, key in first}) == 2
    assert all(key.startswith(f"{run}:") for _, key in keys)
    assert response.output_text == "Done."
    with pytest.raises(LookupError):
        idempotency_key()
