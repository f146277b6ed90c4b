"""A user's token on its way to the worker: encrypted, for a while, and never in the way of a run."""

from __future__ import annotations

import asyncio
import base64
import json
import time
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import httpx
import pytest
from langchain_core.runnables import RunnableConfig
from langgraph.graph import START, StateGraph
from pydantic import SecretStr
from redis.asyncio import Redis

from outlast.agent import Context, Request, Secret
from outlast.shared.domain.ids import new_uuid
from outlast.shared.settings import Settings
from outlast.shared.user_tokens import UserTokens
from tests.support.doors import as_user
from tests.support.graphs import Conversation
from tests.support.processes import free_port
from tests.support.service import serving
from tests.support.waiting import until

TOKEN = "canary-0123456789-token"
ALICE = as_user("1@2", token=TOKEN)


async def teller(_request: Request, context: Context):
    yield context.user_token.reveal()[::-1] if context.user_token else "none"


@pytest.fixture
def keyed(settings: Settings) -> Settings:
    return settings.model_copy(update={"auth": "databricks", "token_key": SecretStr("k" * 32), "admins": ("1@2",)})


@asynccontextmanager
async def asking(settings: Settings, agent: Any = teller, workers: int = 1) -> AsyncGenerator[httpx.AsyncClient]:
    async with (
        serving(settings, {"agent": agent}, workers=workers) as service,
        httpx.AsyncClient(base_url=service.url, timeout=20) as http,
    ):
        yield http


async def told(http: httpx.AsyncClient, headers: dict[str, str], **more: Any) -> str:
    answer = await http.post("/responses", json={"input": "hi", **more}, headers=headers)
    assert answer.json()["status"] == "completed", answer.text
    return answer.json()["output"][0]["content"][0]["text"]


async def in_redis(settings: Settings) -> list[bytes]:
    async with Redis.from_url(settings.required_redis_url()) as redis:
        return [key async for key in redis.scan_iter("*:user_token:*")]


async def test_a_token_is_its_users_and_of_nobody_they_act_for(keyed: Settings) -> None:
    async with asking(keyed) as http:
        assert await told(http, ALICE) == TOKEN[::-1]
        assert await told(http, as_user("3@2", token=TOKEN.upper())) == TOKEN.upper()[::-1]
        assert await told(http, as_user("1@2")) == "none"
        assert await told(http, ALICE | {"x-outlast-principal": "3@2"}) == "none"


async def test_without_a_key_none_travels(keyed: Settings) -> None:
    async with asking(keyed.model_copy(update={"token_key": None})) as http:
        assert await told(http, ALICE) == "none"
    assert await in_redis(keyed) == []


async def test_a_token_is_gone_with_its_run_however_it_ends(keyed: Settings) -> None:
    async with asking(keyed, workers=0) as http:  # nobody executes them
        for ending in ("cancel", "delete"):
            answer = await http.post("/responses", json={"input": "hi", "background": True}, headers=ALICE)
            run = answer.json()["id"]
            assert len(await in_redis(keyed)) == 1
            if ending == "cancel":
                await http.post(f"/responses/{run}/cancel", headers=ALICE)
            else:
                await http.delete(f"/responses/{run}", headers=ALICE)
            await until(lambda: none_left(keyed))


async def none_left(settings: Settings) -> bool:
    return await in_redis(settings) == []


async def test_a_request_sent_again_leaves_no_second_token(keyed: Settings) -> None:
    headers = ALICE | {"idempotency-key": "once"}
    async with asking(keyed, workers=0) as http:
        asked = {"input": "hi", "background": True}
        answers = await asyncio.gather(*(http.post("/responses", json=asked, headers=headers) for _ in range(8)))
        [run] = {answer.json()["id"] for answer in answers}

        async def one_left() -> bool:
            return [key.decode() for key in await in_redis(keyed)] == [
                f"{{outlast}}:user_token:{run.removeprefix('resp_')}"
            ]

        await until(one_left)


async def test_what_a_graph_must_not_store_it_cannot_store(keyed: Settings) -> None:
    from_state: list[Any] = []

    async def node(state: Conversation, config: RunnableConfig) -> Any:
        from_state.append(config.get("configurable", {})["outlast_context"].user_token)
        return {"messages": [{"role": "assistant", "content": "hi", "additional_kwargs": {"it": from_state[0]}}]}

    graph = StateGraph(Conversation).add_node("node", node).add_edge(START, "node")
    async with asking(keyed, graph) as http:
        answer = (await http.post("/responses", json={"input": "hi"}, headers=ALICE)).json()
    assert answer["status"] == "failed" and from_state[0].reveal() == TOKEN


# -- by itself ---------------------------------------------------------------------------------------------------------


def jwt(**claims: Any) -> str:
    coded = [
        base64.urlsafe_b64encode(json.dumps(part).encode()).decode().rstrip("=") for part in ({"alg": "x"}, claims)
    ]
    return ".".join([*coded, "c2lnbmF0dXJl"])


async def life(settings: Settings, token: str) -> float | None:
    """For how many seconds it is kept; None: not at all."""
    run_id = new_uuid()
    async with (
        UserTokens(settings).open() as tokens,
        Redis.from_url(settings.required_redis_url()) as redis,
        tokens.sent(run_id, Secret(token)),
    ):
        left: int = await redis.pttl(f"{{outlast}}:user_token:{run_id.hex}")
        kept = await tokens.get(run_id)
        assert (kept.reveal() if kept else None) == (token if left > 0 else None)
        return left / 1000 if left > 0 else None


async def test_a_token_is_kept_until_it_ends_and_not_longer_than_the_setting(keyed: Settings) -> None:
    now = time.time()
    assert 290 < (await life(keyed, jwt(exp=now + 300)) or 0) <= 300
    assert await life(keyed, jwt(exp=now - 1)) is None
    nonsense = (
        "opaque",
        "a.b.c",
        jwt(),
        jwt(exp="x"),
        jwt(exp=None),
        jwt(exp=1e400),
        jwt(exp=10**400),
        jwt(exp=now + 1e9),
        "a." + "W1" * 8000 + ".c",
    )
    for token in nonsense:
        assert 3590 < (await life(keyed, token) or 0) <= 3600, token


async def test_a_sealed_token_opens_with_its_key_and_for_its_run_alone(keyed: Settings) -> None:
    mine, other = new_uuid(), new_uuid()
    elsewhere = keyed.model_copy(update={"token_key": SecretStr("K" * 32)})
    async with (
        UserTokens(keyed).open() as tokens,
        UserTokens(elsewhere).open() as strangers,
        Redis.from_url(keyed.required_redis_url()) as redis,
        tokens.sent(mine, Secret(TOKEN)),
    ):
        sealed: Any = await redis.get(f"{{outlast}}:user_token:{mine.hex}")
        assert sealed and TOKEN.encode() not in sealed
        await redis.set(f"{{outlast}}:user_token:{other.hex}", sealed)
        assert await tokens.get(other) is None and await strangers.get(mine) is None
        for broken in (b"x", sealed[:-1], bytes(len(sealed))):
            await redis.set(f"{{outlast}}:user_token:{other.hex}", broken)
            assert await tokens.get(other) is None
        kept = await tokens.get(mine)
        assert kept and kept.reveal() == TOKEN


async def test_many_at_once_all_arrive(keyed: Settings) -> None:
    async with UserTokens(keyed).open() as tokens:
        runs = [new_uuid() for _ in range(300)]

        async def there_and_back(run: Any) -> Secret | None:
            async with tokens.sent(run, Secret(run.hex)):
                return await tokens.get(run)

        found = await asyncio.gather(*map(there_and_back, runs))
    assert [secret and secret.reveal() for secret in found] == [run.hex for run in runs]


@pytest.mark.parametrize("says", [None, b"", b":no number\r\n"], ids=["away", "nothing", "rubbish"])
async def test_a_redis_that_does_not_answer_keeps_nobody_waiting_for_long(keyed: Settings, says: bytes | None) -> None:
    async def say(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while says and await reader.read(4096):
            writer.write(says)
        await reader.read()
        writer.close()

    async with AsyncExitStack() as stack:
        port = free_port()
        if says is not None:
            await stack.enter_async_context(await asyncio.start_server(say, "127.0.0.1", port))
        away = keyed.model_copy(update={"redis_url": SecretStr(f"redis://127.0.0.1:{port}/0")})
        tokens = await stack.enter_async_context(UserTokens(away).open())
        stored: list[Any] = []

        async def submit(run: Any) -> None:
            async with tokens.sent(run, Secret(TOKEN)):
                stored.append(run)

        runs = [new_uuid() for _ in range(50)]
        async with asyncio.timeout(20):
            await asyncio.gather(*map(submit, runs))
            assert await asyncio.gather(*map(tokens.get, runs)) == [None] * len(runs)
        assert stored == runs
