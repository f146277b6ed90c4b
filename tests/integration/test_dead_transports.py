"""A connection that dies at the bad moment: what either event loop raises then is an outage, not a fault of Outlast."""

from __future__ import annotations

import asyncio
import os
import socket
from typing import Any
from uuid import UUID

import psycopg
import pytest
from pydantic import SecretStr
from structlog.testing import capture_logs

from outlast.agent import Secret
from outlast.shared.background import Background
from outlast.shared.broker import BrokerUnavailable, asking, client
from outlast.shared.connections import Database, fixed
from outlast.shared.dead_transports import is_dead_transport
from outlast.shared.domain.ids import new_uuid
from outlast.shared.hints import Hints
from outlast.shared.settings import Settings
from outlast.shared.user_tokens import UserTokens
from tests.support.loops import LOOPS, run_on
from tests.support.waiting import until

ON_EITHER_LOOP = pytest.mark.parametrize("loop", LOOPS)


async def true(value: object) -> object:
    return value


def abort_idle(redis: Any) -> int:
    """Cut the connections that wait for their next use, as the network does: the client has not seen it yet."""
    idle = list(redis.connection_pool._available_connections)
    for connection in idle:
        connection._writer.transport.abort()
    return len(idle)


@ON_EITHER_LOOP
def test_a_word_over_a_dead_connection_is_lost_and_the_next_is_heard(loop: str, redis_url: str) -> None:
    heard: list[UUID] = []
    lost, told = new_uuid(), new_uuid()

    async def scene() -> None:
        hints, ear = Hints(redis_url, "outlast"), Hints(redis_url, "outlast")
        listening = asyncio.create_task(ear.listen(awake=lambda: None, cancelled=heard.append))
        await until(lambda: true(ear.hearing))
        hints.awake()
        await hints._sending.wait(5)
        asyncio.get_running_loop().call_soon(abort_idle, hints._redis)  # just before the word is written
        hints.cancelled([lost])
        await hints._sending.wait(5)
        hints.cancelled([told])
        await until(lambda: true(told in heard))
        await hints.close()
        listening.cancel()
        await asyncio.wait({listening})
        await ear.close()

    with capture_logs() as logs:
        _, complaints = run_on(loop, scene())
    assert complaints == [] and logs == [] and lost not in heard


@ON_EITHER_LOOP
def test_a_listener_whose_connection_dies_hears_again(loop: str, redis_url: str) -> None:
    async def scene() -> None:
        ear = Hints(redis_url, "outlast")
        listening = asyncio.create_task(ear.listen(awake=lambda: None))
        await until(lambda: true(ear.hearing))
        [connection] = ear._redis.connection_pool._in_use_connections
        connection._writer.transport.abort()
        await until(lambda: true(not ear.hearing))
        await until(lambda: true(ear.hearing))
        listening.cancel()
        await asyncio.wait({listening})
        await ear.close()

    with capture_logs() as logs:
        _, complaints = run_on(loop, scene())
    assert complaints == [] and logs == []


@ON_EITHER_LOOP
def test_a_token_is_not_in_the_way_of_its_run_when_a_connection_dies(loop: str, settings: Settings) -> None:
    keyed = settings.model_copy(update={"token_key": SecretStr("k" * 32)})
    run_id = new_uuid()

    async def scene() -> Secret | None:
        async with UserTokens(keyed).open() as tokens:
            assert await tokens.get(run_id) is None
            asyncio.get_running_loop().call_soon(abort_idle, tokens._redis._redis)
            async with tokens.sent(run_id, Secret("canary")):
                pass
            async with tokens.sent(run_id, Secret("canary")):
                pass
            asyncio.get_running_loop().call_soon(abort_idle, tokens._redis._redis)
            tokens.forget(run_id)
            await tokens._forgetting.wait(5)
            return await tokens.get(run_id)

    _, complaints = run_on(loop, scene())
    assert complaints == []


@ON_EITHER_LOOP
def test_a_command_over_a_dead_connection_is_our_error(loop: str, redis_url: str) -> None:
    async def scene() -> BrokerUnavailable:
        async with client(redis_url, tries=1) as redis:
            await redis.ping()
            assert abort_idle(redis)
            with pytest.raises(BrokerUnavailable) as caught, asking():
                await redis.publish("channel", "word")
            return caught.value

    error, _ = run_on(loop, scene())
    assert error.cause in ("ConnectionError", "RuntimeError")


def test_other_runtime_errors_are_not_taken_for_an_outage() -> None:
    mistakes = [
        RuntimeError("Event loop is closed"),
        RuntimeError("the handler is closed"),
        RuntimeError("read() called while another coroutine is already waiting for incoming data"),
        RecursionError("unable to perform operation on <x>; the handler is closed"),
    ]
    for mistake in mistakes:
        assert not is_dead_transport(mistake)
        with pytest.raises(type(mistake)), asking():
            raise mistake


@ON_EITHER_LOOP
def test_a_socket_whose_number_has_come_again_is_an_outage(loop: str, database_url: str) -> None:
    """It was closed, and belongs to a transport now: both loops speak of it in a RuntimeError."""

    async def scene() -> None:
        connection = await Database(fixed(database_url), schema="outlast", application="tests").connect()
        number = connection.pgconn.socket
        ours, theirs = socket.socketpair()
        os.dup2(ours.fileno(), number)
        ours.close()
        _, writer = await asyncio.open_connection(sock=socket.socket(fileno=number))
        for wait in (connection.execute("SELECT 1"), anext(connection.notifies(timeout=5))):
            with pytest.raises(psycopg.OperationalError, match="was closed while an answer"):
                await wait
        writer.close()
        await writer.wait_closed()
        theirs.close()
        await connection.close()

    _, complaints = run_on(loop, scene())
    assert complaints == []


@ON_EITHER_LOOP
def test_what_background_work_raises_is_told_at_once(loop: str) -> None:
    async def broken() -> None:
        raise LookupError("of no concern to its caller")

    async def scene() -> None:
        background = Background()
        background.start(broken())
        await background.wait(5)
        await asyncio.sleep(0)

    with capture_logs() as logs:
        _, complaints = run_on(loop, scene())
    [line] = logs
    assert (line["event"], type(line["exc_info"])) == ("background.broke", LookupError)
    assert complaints == []
