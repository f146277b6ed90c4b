"""Streams through faults: every viewer gets every event once, in order, byte for byte."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator

import httpx
import psycopg
import pytest

from outlast.agent import Context, Request
from outlast.shared.connections import Database
from outlast.shared.domain.ids import parse_response_id, response_id
from outlast.shared.settings import Settings
from outlast.shared.store import events
from tests.support.log import check_log, data_lines, stored_lines, streamed
from tests.support.runs import an_append, append, claimed_one, delta, finish, submitted
from tests.support.service import Replica, Service, replica, serving
from tests.support.waiting import until


class Gate:
    """An agent that says a word each time it is let on."""

    def __init__(self) -> None:
        self.words: asyncio.Queue[str | None] = asyncio.Queue()

    async def agent(self, _request: Request, _context: Context):
        while (word := await self.words.get()) is not None:
            yield word

    def say(self, *words: str | None) -> None:
        for word in words:
            self.words.put_nowait(word)


@pytest.fixture
def gate() -> Gate:
    return Gate()


@pytest.fixture
async def service(settings: Settings, gate: Gate) -> AsyncGenerator[Service]:
    async with serving(settings, {"gate": gate.agent}, replicas=2) as running:
        yield running


async def started(service: Service) -> str:
    """A background run that is under way."""
    return (await service.openai.responses.create(input="x", background=True)).id


async def viewed(service: Service, count: int) -> None:
    """Until so many streams are open."""

    async def enough() -> bool:
        return sum(r.services.tail.streams for r in service.replicas) >= count

    await until(enough)


async def terminated(database_url: str, like: str) -> int:
    """End the server side of connections by the name they go by."""
    connection = await psycopg.AsyncConnection.connect(database_url, autocommit=True)
    async with connection:
        cursor = await connection.execute(
            """SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
               WHERE application_name LIKE %s AND pid <> pg_backend_pid() AND datname = current_database()""",
            (like,),
        )
        row = await cursor.fetchone()
        return row[0] if row else 0


async def test_many_viewers_of_one_run_get_the_same_bytes(service: Service, gate: Gate, database: Database) -> None:
    run = await started(service)
    viewers = [asyncio.create_task(streamed(r.url, run)) for r in service.replicas for _ in range(5)]
    await viewed(service, 10)
    gate.say(*(f"{n} " for n in range(200)), None)

    seen = [data_lines(await viewer) for viewer in viewers]

    lines = await stored_lines(database, run)
    assert seen == [lines] * 10
    check_log(lines)


@pytest.mark.parametrize("victims", ["%listener", "outlast api%", "outlast worker%", "outlast%"])
async def test_streams_survive_killed_connections(
    service: Service, gate: Gate, database: Database, database_url: str, victims: str
) -> None:
    run = await started(service)
    viewers = [asyncio.create_task(streamed(r.url, run)) for r in service.replicas for _ in range(3)]
    await viewed(service, 6)
    for round_ in range(4):
        gate.say(*(f"{round_}.{n} " for n in range(20)))
        await terminated(database_url, victims)
    gate.say(None)

    seen = [data_lines(await viewer) for viewer in viewers]

    lines = await stored_lines(database, run)
    check_log(lines)
    assert seen == [lines] * 6
    said = "".join(e["delta"] for e in check_log(lines) if e["type"] == "response.output_text.delta")
    assert said == "".join(f"{r}.{n} " for r in range(4) for n in range(20))


async def test_streams_go_on_when_no_notification_arrives(settings: Settings, gate: Gate, database: Database) -> None:
    polling = settings.model_copy(update={"tail": "poll"})
    async with serving(polling, {"gate": gate.agent}) as service:
        run = await started(service)
        viewer = asyncio.create_task(streamed(service.url, run))
        await viewed(service, 1)
        for word in ("a", "b", "c"):
            gate.say(word)
        gate.say(None)

        assert data_lines(await viewer) == await stored_lines(database, run)


async def test_a_hint_for_an_event_that_never_came_is_harmless(
    service: Service, gate: Gate, database: Database
) -> None:
    """A worker that has lost its run may still announce numbers."""
    run = await started(service)
    viewer = asyncio.create_task(streamed(service.url, run))
    await viewed(service, 1)
    run_id = parse_response_id(run)
    assert run_id is not None
    await append(database, events.Append(run_id, 99, events.Chunk(10_000, 10_000, delta(10_000))))
    gate.say("a", None)

    assert data_lines(await viewer) == await stored_lines(database, run)


async def test_a_latecomer_reads_what_the_ring_no_longer_holds(
    service: Service, gate: Gate, database: Database
) -> None:
    run = await started(service)
    early = asyncio.create_task(streamed(service.url, run))
    await viewed(service, 1)
    gate.say(*(f"{n} " for n in range(3000)))

    async def far() -> bool:
        return len(await stored_lines(database, run)) > 2500

    await until(far)
    late = asyncio.create_task(streamed(service.url, run, "&starting_after=10"))
    await viewed(service, 2)
    gate.say(None)

    seen_early, seen_late = data_lines(await early), data_lines(await late)
    lines = await stored_lines(database, run)
    assert seen_early == lines
    assert seen_late == lines[11:]


async def test_a_cursor_beyond_the_end_gets_an_empty_stream_that_ends_with_the_run(
    service: Service, gate: Gate
) -> None:
    run = await started(service)
    ahead = asyncio.create_task(streamed(service.url, run, "&starting_after=5000"))
    normal = asyncio.create_task(streamed(service.url, run))
    await viewed(service, 2)
    gate.say("a", None)

    assert data_lines(await ahead) == []
    assert (await ahead).endswith(b"data: [DONE]\n\n")
    assert len(data_lines(await normal)) > 5


async def test_a_quiet_stream_shows_that_it_lives(service: Service, gate: Gate) -> None:
    run = await started(service)
    async with (
        httpx.AsyncClient(base_url=service.url, timeout=10) as client,
        client.stream("GET", f"/responses/{run}?stream=true") as answer,
    ):
        async for piece in answer.aiter_bytes():
            if b": ping\n\n" in piece:
                break
        else:
            pytest.fail("the stream ended without a ping")
    gate.say(None)


async def test_a_client_that_leaves_is_forgotten_and_its_run_goes_on(
    service: Service, gate: Gate, database: Database
) -> None:
    run = await started(service)
    async with (
        httpx.AsyncClient(base_url=service.url) as client,
        client.stream("GET", f"/responses/{run}?stream=true") as answer,
    ):
        await anext(answer.aiter_bytes())
        await viewed(service, 1)

    async def gone() -> bool:
        return service.replicas[0].services.tail.streams == 0

    await until(gone)
    gate.say("still here", None)
    body = await streamed(service.replicas[1].url, run)
    assert b"still here" in body


async def test_what_was_said_while_nobody_watched_is_in_the_next_stream(
    service: Service, gate: Gate, database: Database
) -> None:
    run = await started(service)
    tail = service.replicas[0].services.tail
    for words in (["a "], ["b ", "c "], ["d "]):
        async with (
            httpx.AsyncClient(base_url=service.url) as client,
            client.stream("GET", f"/responses/{run}?stream=true") as answer,
        ):
            await anext(answer.aiter_bytes())

        async def gone() -> bool:
            return tail.streams == 0

        await until(gone)
        known = len(await stored_lines(database, run))
        gate.say(*words)

        async def stored() -> bool:
            return len(await stored_lines(database, run)) >= known + len(words)

        await until(stored)
    viewers = [asyncio.create_task(streamed(service.url, run)) for _ in range(3)]
    await viewed(service, 3)
    gate.say("e ", None)

    seen = [data_lines(await viewer) for viewer in viewers]

    assert seen == [await stored_lines(database, run)] * 3


async def test_a_stopping_replica_aborts_its_streams_and_another_continues_them(
    settings: Settings, gate: Gate, database: Database
) -> None:
    async with serving(settings, {"gate": gate.agent}) as service:
        run = await started(service)
        got = b""
        async with replica(service.settings) as leaving, httpx.AsyncClient(base_url=leaving.url) as client:
            with pytest.raises(httpx.RemoteProtocolError):
                async with client.stream("GET", f"/responses/{run}?stream=true") as answer:
                    stopping = None
                    async for piece in answer.aiter_bytes():
                        got += piece
                        stopping = stopping or asyncio.create_task(leaving.stop())
        assert b"[DONE]" not in got
        gate.say("more", None)
        seen = data_lines(got)
        rest = data_lines(await streamed(service.url, run, f"&starting_after={len(seen) - 1}"))

        assert seen + rest == await stored_lines(database, run)


async def test_a_deleted_run_ends_its_streams_abruptly(service: Service, gate: Gate) -> None:
    run = await started(service)
    viewer = asyncio.create_task(streamed(service.url, run))
    await viewed(service, 1)

    await service.openai.responses.delete(run)

    with pytest.raises(httpx.RemoteProtocolError):
        await viewer


async def test_a_run_written_in_the_store_is_streamed_as_written(settings: Settings, database: Database) -> None:
    """Nothing between the log and the client parses, reorders or renames anything."""
    odd = '{"type":"response.output_text.delta","sequence_number":2,"delta":"\\u2028 \\r \\n é 😀"}'
    async with replica(settings) as alone:
        await submitted(database)
        run = await claimed_one(database)
        await append(
            database,
            events.Append(run.run_id, 1, events.Chunk(2, 2, odd)),
        )
        await append(database, an_append(run, 3))
        assert await finish(database, run, 4)

        body = await streamed(alone.url, response_id(run.run_id))

    assert data_lines(body)[2] == odd


async def test_a_client_that_takes_nothing_is_cut_and_holds_nobody_up(
    settings: Settings, gate: Gate, database: Database
) -> None:
    impatient = settings.model_copy(update={"slow_client_seconds": 1.5})
    async with serving(impatient, {"gate": gate.agent}) as service:
        run = await started(service)
        host, port = service.url.removeprefix("http://").split(":")
        reader, writer = await asyncio.open_connection(host, int(port), limit=1024)
        writer.write(f"GET /responses/{run}?stream=true HTTP/1.1\r\nhost: localhost\r\n\r\n".encode())
        await viewed(service, 1)
        reader._transport.pause_reading()  # type: ignore[attr-defined]  # the point: a client that does not read
        other = asyncio.create_task(streamed(service.url, run))
        await viewed(service, 2)
        gate.say(*("x" * 50_000 for _ in range(200)))

        async def cut() -> bool:
            return service.replicas[0].services.tail.streams == 1

        await until(cut)
        gate.say(None)
        assert data_lines(await other) == await stored_lines(database, run)
        writer.transport.abort()


async def test_a_waiting_client_of_a_stopping_replica_is_sent_to_another_and_nothing_runs_twice(
    settings: Settings, gate: Gate
) -> None:
    async with serving(settings, {"gate": gate.agent}) as service:
        async with replica(service.settings) as leaving, httpx.AsyncClient(base_url=leaving.url) as client:
            waiting = asyncio.create_task(client.post("/v1/responses", json={"input": "x"}))
            await until(lambda: _streams(leaving))
            await leaving.stop()
            answer = await waiting
        gate.say("a", None)
        async with httpx.AsyncClient(base_url=service.url) as client:
            finished = await client.get(f"/v1/{answer.headers['location']}")

    assert answer.status_code == 303
    assert finished.json()["output"][0]["content"][0]["text"] == "a"


async def _streams(of: Replica) -> bool:
    return of.services.tail.streams > 0


async def test_an_event_that_was_never_announced_is_found_by_the_poll(settings: Settings, database: Database) -> None:
    """A worker may die between its commit and its NOTIFY."""
    async with replica(settings) as alone:
        await submitted(database)
        run = await claimed_one(database)
        viewer = asyncio.create_task(streamed(alone.url, response_id(run.run_id)))
        await until(lambda: _streams(alone))
        connection = await database.connect()
        async with connection, connection.transaction():
            await connection.execute("UPDATE run_heads SET last_seq = 2")
            await connection.execute(
                "INSERT INTO run_events (run_id, first_seq, last_seq, data) VALUES (%s, 2, 2, %s)",
                (run.run_id, delta(2, "unannounced")),
            )

        async def read() -> bool:
            return alone.services.tail.position(run.run_id) == 3

        await until(read)
        assert await finish(database, run, 3)
        assert b"unannounced" in await viewer


async def test_what_others_say_on_the_channel_is_no_harm(service: Service, gate: Gate, database: Database) -> None:
    run = await started(service)
    viewer = asyncio.create_task(streamed(service.url, run))
    await viewed(service, 1)
    connection = await database.connect()
    async with connection:
        for payload in ("", "x", "x:y,:,::", "é" * 100, "AAAAAAAAAAAAAAAAAAAAAA:99999999999999999999", "-:1"):
            await connection.execute("SELECT pg_notify('outlast_run_events', %s)", (payload,))
    gate.say("a", None)

    assert data_lines(await viewer) == await stored_lines(database, run)
