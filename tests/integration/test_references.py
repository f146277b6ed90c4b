"""Items of earlier responses in a request's input: named, sent back whole, taken back meanwhile."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Sequence
from typing import Any

import httpx
import pytest

from outlast.agent import Approval, Context, Reasoning, Request, Text, ToolCall, ToolResult
from outlast.shared.connections import Database
from outlast.shared.domain.events import TERMINAL_TYPES, Chunk
from outlast.shared.domain.ids import item_id, new_uuid, parse_response_id, response_id
from outlast.shared.domain.runs import Lease, Run, RunStatus, ToolItems
from outlast.shared.settings import Settings
from outlast.shared.store import events, leases, runs
from outlast.shared.wire import to_json, type_of
from tests.support.refusals import refused
from tests.support.runs import claimed_one, submitted
from tests.support.service import serving
from tests.support.streams import End, attempt

Item = dict[str, Any]
QUESTION: Item = {"role": "user", "content": "And now?"}
SAID = [Text("Partial"), ToolCall("clock", {}, "c1"), ToolResult("c1", "12:00"), Text("It is")]
DONE = [ToolCall("clock", {}, "c1"), ToolResult("c1", "12:01"), Text("It is noon.")]


@pytest.fixture
async def http(settings: Settings) -> AsyncGenerator[httpx.AsyncClient]:
    """An API without a worker: what it has stored stays as it is."""
    async with (
        serving(settings, {"test": patient}, workers=0) as service,
        httpx.AsyncClient(base_url=service.url, timeout=20) as client,
    ):
        yield client


async def patient(request: Request, _context: Context):
    yield request.text


async def written(database: Database, run: Run, emissions: Sequence[object], end: End = "complete") -> list[Item]:
    """The items that an attempt adds, stored as a worker stores them; without an end it dies within its last text."""
    log = await database.run(lambda c: events.read_all(c, run.run_id))
    lines = attempt(run, emissions, log=log, end=end)
    while end is None and ".delta" not in type_of(lines[-1]):
        lines.pop()
    last = json.loads(lines[-1])
    chunk = Chunk(len(log), last["sequence_number"], "\n".join(lines))
    if last["type"] in TERMINAL_TYPES:
        ending = runs.Ending(RunStatus(last["response"]["status"]), to_json(last["response"]), chunk)
        held = Lease(run.run_id, run.attempt)
        assert await database.run(lambda c: runs.finish(c, database.schema, held, ending))
    else:
        append = events.Append(run.run_id, run.attempt, chunk)
        assert await database.run(lambda c: events.append(c, database.schema, [append]))
    added = [json.loads(line) for line in lines if line.startswith('{"type":"response.output_item.added"')]
    return [event["item"] for event in added]


async def answered(database: Database, emissions: Sequence[object] = DONE, **changes: Any) -> tuple[Run, list[Item]]:
    """A run that has ended, and its output."""
    await submitted(database, **changes)
    run = await claimed_one(database)
    await written(database, run, emissions)
    ended = await database.run(lambda c: runs.read(c, run.run_id, run.principal))
    assert ended is not None and ended.response is not None
    return ended, json.loads(ended.response)["output"]


async def lost_in_mid_answer(database: Database, **changes: Any) -> tuple[Run, list[Item]]:
    """A run whose first attempt died, claimed again; and the items it had added."""
    await submitted(database, **changes)
    first = await claimed_one(database)
    items = await written(database, first, SAID, end=None)
    await database.run(lambda c: leases.release(c, [Lease(first.run_id, first.attempt)], cause="died"))
    return await claimed_one(database), items


def names(items: Sequence[Item]) -> list[Item]:
    return [{"type": "item_reference", "id": item["id"]} for item in items]


async def stored_input(http: httpx.AsyncClient, database: Database, given: Any, **asked: Any) -> Any:
    """What the agent will get."""
    answer = await http.post("/v1/responses", json={"input": given, "background": True, **asked})
    assert answer.status_code == 200, answer.text
    run_id = parse_response_id(answer.json()["id"])
    run = await database.run(lambda c: runs.read(c, run_id, "anonymous")) if run_id else None
    assert run is not None
    return run.request["input"]


async def test_a_named_item_is_replaced_by_the_item(http: httpx.AsyncClient, database: Database) -> None:
    _, first = await answered(database)
    _, second = await answered(database)
    given = [QUESTION, *names(second), QUESTION, {"id": first[0]["id"]}, QUESTION]

    assert await stored_input(http, database, given) == [QUESTION, *second, QUESTION, first[0], QUESTION]
    assert [item["type"] for item in first] == ["mcp_call", "message"]


async def test_input_without_references_stays_as_it_came(http: httpx.AsyncClient, database: Database) -> None:
    theirs = {"type": "message", "id": "msg_of_another_server", "role": "assistant", "content": [], "extra": [1]}

    assert await stored_input(http, database, "hi") == "hi"
    assert await stored_input(http, database, [theirs, QUESTION]) == [theirs, QUESTION]


async def test_an_item_sent_back_whole_is_kept_as_it_comes(http: httpx.AsyncClient, database: Database) -> None:
    _, output = await answered(database)
    edited = {**output[1], "content": [{"type": "output_text", "text": "Edited."}]}
    deleted = {**output[1], "id": item_id(new_uuid(), "msg_", 0)}

    assert await stored_input(http, database, [output[0], edited, deleted]) == [output[0], edited, deleted]


async def test_an_item_is_not_doubled_by_naming_it_twice(http: httpx.AsyncClient, database: Database) -> None:
    _, output = await answered(database)

    assert await stored_input(http, database, [*names(output), *names(output)]) == output


@pytest.mark.parametrize("finished", [True, False])
async def test_superseded_items_are_left_out_named_or_whole(
    http: httpx.AsyncClient, database: Database, finished: bool
) -> None:
    run, old = await lost_in_mid_answer(database)
    if finished:
        await written(database, run, DONE)
    else:
        await written(database, run, [*DONE, Reasoning("Hm.")], end=None)
    new = [item_id(run.run_id, prefix, index) for prefix, index in (("mcp_", 3), ("msg_", 4))]

    given = [QUESTION, *names(old), *old, *({"type": "item_reference", "id": id} for id in new), QUESTION]
    kept = await stored_input(http, database, given)

    assert [item.get("id") for item in kept] == [None, *new, None]
    assert kept[2]["content"][0]["text"] == "It is noon."


async def test_a_message_that_says_more_than_the_superseded_one_is_kept(
    http: httpx.AsyncClient, database: Database
) -> None:
    run, old = await lost_in_mid_answer(database)
    await written(database, run, DONE)

    def message(text: str) -> Item:
        return {**old[0], "content": [{"type": "output_text", "text": text}]}

    merged = message("PartialIt isIt is noon.")
    assert await stored_input(http, database, [message("Partial"), merged]) == [merged]
    plain: Item = {"role": "assistant", "id": old[0]["id"], "content": "Partial"}
    assert await stored_input(http, database, [plain, {**plain, "content": "More"}]) == [{**plain, "content": "More"}]


async def test_a_superseded_call_is_known_by_its_call_id(http: httpx.AsyncClient, database: Database) -> None:
    """Some clients send calls and their outputs back without the items' ids."""
    run, old = await lost_in_mid_answer(database, tool_items=ToolItems.FUNCTION_CALL)
    await written(database, run, DONE)
    assert [item["type"] for item in old] == ["message", "function_call", "function_call_output", "message"]
    call_id = old[1]["call_id"]
    current = item_id(run.run_id, "call_", 4)

    def pair(call_id: str) -> list[Item]:
        call = {"type": "function_call", "call_id": call_id, "name": "clock", "arguments": "{}"}
        return [call, {"type": "function_call_output", "call_id": call_id, "output": "12:00"}]

    assert await stored_input(http, database, [*pair(call_id), *pair(current), QUESTION]) == [*pair(current), QUESTION]


async def test_an_id_of_the_agents_making_is_found_beside_the_others_and_in_the_previous_response(
    http: httpx.AsyncClient, database: Database
) -> None:
    run, output = await answered(database, [Text("May I?"), Approval("delete", {}, "mcpr_mine")])
    reply = {"type": "mcp_approval_response", "approval_request_id": "mcpr_mine", "approve": True}

    assert await stored_input(http, database, [*names(output), reply]) == [*output, reply]
    previous = {"previous_response_id": response_id(run.run_id)}
    assert await stored_input(http, database, [*names(output[1:]), reply], **previous) == [output[1], reply]


async def test_what_cannot_be_found_is_refused(http: httpx.AsyncClient, database: Database) -> None:
    _, foreign = await answered(database, principal="somebody")
    gone, deleted = await answered(database)
    await database.run(lambda c: runs.delete(c, gone.run_id, "anonymous"))
    run, output = await answered(database)
    wrong = [
        foreign[0]["id"],
        deleted[0]["id"],
        item_id(new_uuid(), "msg_", 0),
        item_id(run.run_id, "msg_", 2),
        item_id(run.run_id, "rs_", 1),
        response_id(run.run_id),
        "msg_of_another_server",
        "",
        "x" * 10_000,
    ]
    for id in wrong:
        given = [QUESTION, *names(output), {"type": "item_reference", "id": id}]
        answer = await http.post("/v1/responses", json={"input": given})
        message = refused(answer, 400, param="input[3].id", code="item_not_found")
        assert message == f"Item with id '{id[:100]}' not found."


async def test_of_a_run_that_goes_on_finished_items_can_be_named(http: httpx.AsyncClient, database: Database) -> None:
    await submitted(database)
    items = await written(database, await claimed_one(database), SAID, end=None)

    [message, call] = await stored_input(http, database, names(items[:2]))
    assert (message["content"][0]["text"], call["output"]) == ("Partial", "12:00")
    answer = await http.post("/v1/responses", json={"input": names(items[2:])})
    assert "in progress" in refused(answer, 400, param="input[0].id", code="item_not_found")


async def test_named_items_cannot_make_a_request_larger_than_it_may_be(settings: Settings, database: Database) -> None:
    small = settings.model_copy(update={"max_request_bytes": 8000})
    outputs = [output for _, output in [await answered(database, [Text("x" * 3000)]) for _ in range(3)]]
    async with serving(small, {"test": patient}, workers=0) as service, httpx.AsyncClient(base_url=service.url) as http:
        assert (await stored_input(http, database, names(outputs[0])))[0] == outputs[0][0]
        beside = {"role": "user", "content": "y" * 6000}
        for given in ([*names(outputs[0]), beside], [named for output in outputs for named in names(output)]):
            answer = await http.post("/v1/responses", json={"input": given})
            refused(answer, 413, param="input", code="request_too_large")


async def test_no_request_reads_more_responses_than_may_be(http: httpx.AsyncClient) -> None:
    given = [{"type": "item_reference", "id": item_id(new_uuid(), "msg_", 0)} for _ in range(1001)]

    assert "1000" in refused(
        await http.post("/v1/responses", json={"input": given}), 400, param="input", code="invalid_value"
    )


async def test_a_request_is_repeated_by_what_was_sent_not_by_what_it_became(
    http: httpx.AsyncClient, database: Database
) -> None:
    run, output = await answered(database)
    body = {"input": names(output), "background": True}

    first = await http.post("/v1/responses", json=body, headers={"Idempotency-Key": "k"})
    await database.run(lambda c: runs.delete(c, run.run_id, "anonymous"))
    again = await http.post("/v1/responses", json=body, headers={"Idempotency-Key": "k"})
    whole = await http.post(
        "/v1/responses", json={"input": output, "background": True}, headers={"Idempotency-Key": "k"}
    )

    assert (first.status_code, again.status_code, whole.status_code) == (200, 200, 422)
    assert first.json()["id"] == again.json()["id"]


async def test_an_agent_gets_whole_items_of_the_turn_before(settings: Settings) -> None:
    seen: list[Sequence[Any]] = []

    async def attentive(request: Request, _context: Context):
        seen.append(request.input)
        for emission in DONE:
            yield emission

    async with serving(settings, {"attentive": attentive}) as service:
        first = await service.openai.responses.create(input="What time is it?")
        references: Any = [*names([item.to_dict() for item in first.output]), QUESTION]
        second = await service.openai.responses.create(input=references)

    assert list(seen[1]) == [*(item.to_dict() for item in first.output), QUESTION]
    assert second.output_text == "It is noon."
