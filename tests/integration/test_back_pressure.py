"""Beyond a number of waiting runs a submission is refused, in a way that clients obey."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
import openai
import pytest

from outlast.agent import Context, Request
from outlast.api.admission import Admission, through
from outlast.shared.connections import Database
from outlast.shared.domain.errors import Invalid, QueueFull, Unavailable
from outlast.shared.settings import Settings
from outlast.shared.store import submissions
from tests.support.runs import a_submission, claimed, submitted
from tests.support.service import serving, worker
from tests.support.waiting import until


async def echo(request: Request, _context: Context):
    yield request.text


def limited(settings: Settings, **limits: Any) -> Settings:
    return settings.model_copy(update={"agents": {"echo": "tests:echo"}, **limits})


def full(answer: httpx.Response, code: str = "queue_full") -> bool:
    if answer.status_code == 200:
        return False
    error = answer.json()["error"]
    assert (answer.status_code, error["type"], error["code"]) == (429, "rate_limit_error", code)
    assert 1 <= int(answer.headers["retry-after"]) <= 60 and error["message"]
    return True


async def waiting(database: Database) -> int:
    return await database.run(lambda c: submissions.count_queued(c, 10_000))


async def test_a_limit_is_never_exceeded_however_many_come_at_once(settings: Settings, database: Database) -> None:
    async with (
        serving(limited(settings, max_queued=30), {"echo": echo}, workers=0) as service,
        httpx.AsyncClient(base_url=service.url, timeout=20) as http,
    ):
        for _ in range(3):
            answers = await asyncio.gather(
                *(http.post("/responses", json={"input": "hi", "background": True}) for _ in range(60))
            )
            for answer in answers:
                full(answer)
        assert await waiting(database) == 30

        foreground = await http.post("/v1/responses", json={"input": "hi"})
        stream = await http.post("/invocations", json={"input": "hi", "stream": True})
        assert full(foreground) and full(stream)
        assert await waiting(database) == 30


async def test_one_principals_limit_is_not_anothers(settings: Settings, database: Database) -> None:
    admission = Admission(database, limited(settings, max_queued_per_principal=2, max_queued=5))

    async def submit(principal: str) -> str | None:
        submission = a_submission(principal=principal)
        try:
            with through(await admission.check(submission)):
                await submitted(database, principal=principal)
        except QueueFull as error:
            return error.code
        return None

    assert [await submit(p) for p in "AAABBAB"] == [None, None, "principal_queue_full", None, None,
                                                    "principal_queue_full", "principal_queue_full"]  # fmt: skip
    assert [await submit(p) for p in "CDA"] == [None, "queue_full", "queue_full"]


async def test_nobody_is_refused_for_what_was_counted_twice(
    settings: Settings, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    admission = Admission(database, limited(settings, max_queued=2))

    async def refused() -> bool:
        try:
            await admission.check(a_submission())
        except QueueFull:
            return True
        return False

    with monkeypatch.context() as at_once:
        at_once.setattr("outlast.api.admission._COUNT_SECONDS", 0)
        at_once.setattr("outlast.api.admission._COUNT_SHARE", 1e9)
        bounds = await admission.check(a_submission())
    with through(bounds):
        await submitted(database)
        await until(refused)  # counted while it was on its way, though it is stored: perhaps two
    assert not await refused()
    with through(await admission.check(a_submission())):
        await submitted(database)
    assert await refused() and await refused()


async def test_what_was_not_stored_does_not_count(settings: Settings, database: Database) -> None:
    admission = Admission(database, limited(settings, max_queued=2))
    for _ in range(5):
        with pytest.raises(Invalid), through(await admission.check(a_submission())):
            raise Invalid
    for _ in range(2):
        with pytest.raises(Unavailable), through(await admission.check(a_submission())):
            raise Unavailable  # it may have been
    with pytest.raises(QueueFull):
        await admission.check(a_submission())


async def test_runs_that_waited_before_this_replica_count_from_the_first_request(
    settings: Settings, database: Database
) -> None:
    for _ in range(3):
        await submitted(database)
    with pytest.raises(QueueFull):
        await Admission(database, limited(settings, max_queued=3)).check(a_submission())
    await claimed(database, limit=1)
    await Admission(database, limited(settings, max_queued=3)).check(a_submission())


async def test_a_known_key_is_answered_though_the_queue_is_full(settings: Settings) -> None:
    async with (
        serving(limited(settings, max_queued=1), {"echo": echo}, workers=0) as service,
        httpx.AsyncClient(base_url=service.url, timeout=20) as http,
    ):
        ask: dict[str, Any] = {"json": {"input": "hi", "background": True}, "headers": {"Idempotency-Key": "k"}}
        first = await http.post("/responses", **ask)
        assert full(await http.post("/responses", json=ask["json"]))
        again = await http.post("/responses", **ask)
        assert again.json()["id"] == first.json()["id"]


@pytest.mark.parametrize("mode", ["background", "foreground", "stream"])
async def test_the_openai_client_comes_through_when_the_queue_has_drained(settings: Settings, mode: str) -> None:
    few = limited(settings, max_queued=3, max_queued_per_principal=3)
    async with serving(few, {"echo": echo}, workers=0) as service:
        for _ in range(3):
            await service.openai.responses.create(input="hi", background=True)
        with pytest.raises(openai.RateLimitError) as refusal:
            await service.openai.responses.create(input="hi", background=True)
        assert refusal.value.code == "queue_full"

        client = service.openai.with_options(max_retries=5)
        asked: dict[str, Any] = {"stream": True} if mode == "stream" else {"background": mode == "background"}
        asking = asyncio.create_task(client.responses.create(input="at last", **asked))
        await asyncio.sleep(0)
        async with worker(few, {"echo": echo}):
            answer = await asking
            if mode == "stream":
                assert [event.type async for event in answer][-1] == "response.completed"  # type: ignore[union-attr]
            elif mode == "foreground":
                assert answer.output_text == "at last"  # type: ignore[union-attr]
            else:
                assert answer.status == "queued"  # type: ignore[union-attr]


async def test_a_queue_too_long_to_be_counted_is_estimated(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(submissions, "COUNTED_EXACTLY", 5)
    for _ in range(4):
        await submitted(database)

    async def count() -> int:
        return await database.run(lambda c: submissions.count_queued(c, 1000))

    assert await count() == 4
    for _ in range(6):
        await submitted(database)
    assert 5 <= await count() <= 1000
    await database.run(lambda c: c.execute("VACUUM ANALYZE runs"))
    assert await count() == 10
