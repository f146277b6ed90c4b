"""What no graph can do is refused before anything is stored, or ends its run with the same words."""

from __future__ import annotations

from typing import Any

import httpx
import openai
import pytest

from outlast.agent import Context, Request, State
from outlast.shared.connections import Database
from outlast.shared.settings import Settings
from outlast.shared.store import workers
from tests.support.adder import add, rule
from tests.support.graphs import RuleModel, calling
from tests.support.refusals import refused
from tests.support.service import replica, serving, worker
from tests.support.waiting import until

SEARCH: dict[str, Any] = {"type": "web_search"}
MESSAGE: dict[str, Any] = {"role": "user", "content": "hi"}
REFUSED: dict[str, tuple[dict[str, Any], str, str]] = {
    "a tool": ({"tools": [SEARCH]}, "tools[0].type", "unsupported_tool"),
    "a choice": ({"tool_choice": {"type": "function", "name": "f"}}, "tool_choice.name", "invalid_value"),
    "an item": ({"input": [MESSAGE, {"type": "web_search_call"}]}, "input[1].type", "unsupported_item"),
    "an image": (
        {"input": [{"role": "user", "content": [{"type": "input_image", "file_id": "f"}]}]},
        "input[0].content[0].file_id", "unsupported_content",
    ),
    "a template": ({"prompt": {"id": "p"}}, "prompt", "unsupported_parameter"),
}  # fmt: skip


async def mirror(request: Request, context: Context):
    """Shows what reached it."""
    yield State({"body": request.body})


async def test_the_api_refuses_for_graphs_alone(settings: Settings, database: Database) -> None:
    model = RuleModel(answer=rule)
    async with serving(settings, {"graph": calling(model), "mirror": mirror}) as service:
        await until(lambda: database.run(lambda c: workers.kind_of(c, "graph")))
        async with httpx.AsyncClient(base_url=service.url, timeout=20) as http:
            for body, param, code in REFUSED.values():
                refused(await http.post("/v1/responses", json={"input": "hi"} | body), 400, param=param, code=code)
                other = {"input": "hi", "model": "mirror"} | body
                answer = await http.post("/v1/responses", json=other)
                assert answer.json()["custom_outputs"]["body"] == other
    stored = await database.run(lambda c: c.execute("SELECT count(*) FROM runs WHERE agent = 'graph'"))
    assert (model.calls, await stored.fetchone()) == ([], (0,))


@pytest.mark.parametrize("name", REFUSED)
async def test_before_a_worker_has_reported_the_run_fails_with_the_same_words(
    settings: Settings, database: Database, name: str
) -> None:
    body, param, code = REFUSED[name]
    given: dict[str, Any] = {"input": "hi"} | body
    model = RuleModel(answer=rule)
    agents = {"graph": calling(model)}
    named = settings.model_copy(update={"agents": {"graph": "tests:graph"}})
    async with replica(named) as api:
        run = await api.openai.responses.create(background=True, **given)
        async with worker(named, agents):
            await until(lambda: database.run(lambda c: workers.kind_of(c, "graph")))
            with pytest.raises(openai.BadRequestError) as known:
                await api.openai.responses.create(**given)

            async def ended() -> Any:
                found = await api.openai.responses.retrieve(run.id)
                return found if found.status == "failed" else None

            error = (await until(ended)).error
    assert (known.value.param, known.value.code, known.value.body["message"]) == (param, code, error.message)  # type: ignore[index]
    assert (error.code, model.calls) == (code, [])


async def test_a_tool_that_the_agent_takes_reaches_its_model(settings: Settings, database: Database) -> None:
    model = RuleModel(answer=rule)
    named = settings.model_copy(update={"graph_tools": {"graph": ("web_search",)}})
    async with serving(named, {"graph": calling(model)}) as service:
        await until(lambda: database.run(lambda c: workers.kind_of(c, "graph")))
        response = await service.openai.responses.create(input="hi", tools=[SEARCH])  # type: ignore[list-item]
    assert (response.status, model.calls[0].options["tools"]) == ("completed", [SEARCH])


async def test_after_so_many_calls_of_its_tools_a_run_is_without_them(settings: Settings) -> None:
    from_now_on: list[list[str]] = []

    def again(messages: Any, options: dict[str, Any]) -> Any:
        from_now_on.append([tool["function"]["name"] for tool in options.get("tools", ())])
        return rule(messages[:1], options) if from_now_on[-1] else rule(messages, options)

    async with serving(settings, {"graph": calling(RuleModel(answer=again), add)}) as service:
        response = await service.openai.responses.create(input="add", max_tool_calls=2)
    assert from_now_on == [["add"], ["add"], []]
    assert [item.type for item in response.output].count("mcp_call") == 2 and response.status == "completed"


async def test_nothing_is_not_gone_on_with(settings: Settings) -> None:
    async with serving(settings, {"graph": calling(RuleModel(answer=rule))}) as service:
        empty = await service.openai.responses.create(input=[], conversation="new")
        await service.openai.responses.create(input="hi", conversation="old")
        again = await service.openai.responses.create(input=[], conversation="old")
    assert empty.error is not None and "nothing to go on with" in empty.error.message
    assert again.status == "completed"
