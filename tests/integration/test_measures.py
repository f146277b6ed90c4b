"""What is measured of runs, writes and streams, as a monitor reads it."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from itertools import pairwise

import httpx
import pytest

from outlast.agent import AgentError, Context, Request, Retry
from outlast.api.tail.hub import Hub
from outlast.shared.connections import Database
from outlast.shared.domain.ids import response_id
from outlast.shared.settings import Settings
from tests.support.log import streamed
from tests.support.service import Service, serving
from tests.support.waiting import until


async def echo(request: Request, _context: Context):
    if request.text == "fail":
        raise AgentError("no")
    yield request.text


def samples(text: str, name: str) -> dict[str, float]:
    """The samples of a metric by their labels, without the worker's."""
    found = re.findall(rf"^{name}(?:\{{(.*)\}})? (\S+)$", text, re.MULTILINE)
    return {re.sub(r',?worker="[^"]*"', "", labels).strip(","): float(value) for labels, value in found}


async def scraped(service: Service, enough: Callable[[str], bool]) -> str:
    """The metrics, as soon as they say this: workers report once a beat."""
    async with httpx.AsyncClient(base_url=service.url) as http:

        async def once() -> str | None:
            text = (await http.get("/metrics")).text
            return text if enough(text) else None

        return await until(once)


@pytest.fixture(autouse=True)
def fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each scrape looks at the database."""
    monkeypatch.setattr("outlast.api.overviews._KEPT_SECONDS", 0)


async def test_waits_durations_and_flushes_are_distributions(settings: Settings, database: Database) -> None:
    async with serving(settings, {"echo": echo}) as service:
        for text in ("a", "b", "fail"):
            await service.openai.responses.create(input=text)

        text = await scraped(service, lambda t: sum(samples(t, "outlast_worker_run_seconds_count").values()) == 3)

    assert samples(text, "outlast_worker_run_seconds_count") == {
        'agent="echo",status="completed"': 2,
        'agent="echo",status="failed"': 1,
    }
    assert samples(text, "outlast_worker_start_seconds_count") == {'agent="echo"': 3}
    buckets = samples(text, "outlast_worker_start_seconds_bucket")
    assert all(a <= b for a, b in pairwise(buckets.values())) and buckets['agent="echo",le="+Inf"'] == 3
    flushes = samples(text, "outlast_worker_flush_seconds_count")[""]
    assert flushes == samples(text, "outlast_worker_flush_runs_count")[""] > 0
    assert samples(text, "outlast_worker_flush_events_sum")[""] >= flushes


async def test_a_run_lasts_from_its_first_claim_over_all_attempts(settings: Settings, database: Database) -> None:
    async def twice(_request: Request, context: Context):
        if context.attempt == 1:
            forty_minutes_ago = "UPDATE runs SET started_at = started_at - interval '40 minutes'"
            await database.run(lambda c: c.execute(forty_minutes_ago))
            raise Retry
        yield "done"

    async with serving(settings.model_copy(update={"retry_seconds": 0.01}), {"twice": twice}) as service:
        await service.openai.responses.create(input="x")
        text = await scraped(service, lambda t: bool(samples(t, "outlast_worker_run_seconds_count")))
    buckets = samples(text, "outlast_worker_run_seconds_bucket")
    within = [buckets[f'agent="twice",le="{seconds}",status="completed"'] for seconds in ("1800.0", "3600.0")]
    assert within == [0, 1]


async def test_a_write_of_an_attempt_that_was_replaced_is_counted(settings: Settings, database: Database) -> None:
    began, go_on = asyncio.Event(), asyncio.Event()

    async def slow(_request: Request, context: Context):
        if context.attempt == 1:
            yield "one"
            began.set()
            await go_on.wait()
        yield "two"

    settled = settings.model_copy(update={"beat_seconds": 600.0, "lease_seconds": 5.0, "sweep_seconds": 600.0})
    async with serving(settled, {"slow": slow}) as service:
        [worker] = service.workers
        await service.openai.responses.create(input="x", background=True)
        await worker.dispatcher.ring()
        await began.wait()
        await database.run(lambda c: c.execute("UPDATE run_heads SET attempt = attempt + 1"))  # as a takeover does
        go_on.set()
        assert worker.dispatcher.tally.counters["fenced_writes"] == 0

        async def refused() -> bool:
            return worker.dispatcher.tally.counters["fenced_writes"] == 1

        await until(refused)
        await worker.dispatcher.beat_once()
        text = await scraped(service, lambda _: True)
    assert samples(text, "outlast_worker_fenced_writes_total") == {"": 1}


class Watched:
    """A run that says a word when it is let, and ends when it is let; and somebody who follows it."""

    def __init__(self) -> None:
        self.speak, self.end = asyncio.Event(), asyncio.Event()

    async def agent(self, _request: Request, _context: Context):
        await self.speak.wait()
        yield "word"
        await self.end.wait()

    async def follow(self, service: Service) -> tuple[Hub, asyncio.Task[bytes]]:
        response = await service.openai.responses.create(input="x", background=True)
        watching = asyncio.create_task(streamed(service.url, response.id))

        async def followed() -> Hub | None:
            hubs = service.replicas[0].services.tail._hubs.values()
            return next((hub for hub in hubs if hub.followed_since is not None and hub.next > 2), None)

        return await until(followed), watching


def lags(text: str) -> float:
    return samples(text, "outlast_event_lag_seconds_count")[""]


async def test_the_lag_is_that_of_events_that_were_waited_for(settings: Settings, database: Database) -> None:
    watched = Watched()
    async with serving(settings, {"watched": watched.agent}) as service:
        hub, watching = await watched.follow(service)
        before = lags(await scraped(service, lambda _: True))
        watched.speak.set()
        await scraped(service, lambda text: lags(text) > before)
        watched.end.set()
        await watching
        text = await scraped(service, lambda _: True)
        assert samples(text, "outlast_event_lag_seconds_sum")[""] < 10

        await database.run(lambda c: c.execute("UPDATE run_events SET created_at = now() - interval '1 hour'"))
        run = response_id(hub.run_id)
        for _ in range(3):  # what is old when somebody comes has not been late
            await streamed(service.url, run)
        assert lags(await scraped(service, lambda _: True)) == lags(text)


async def test_what_is_late_for_who_waits_is_measured(settings: Settings, database: Database) -> None:
    watched = Watched()
    async with serving(settings, {"watched": watched.agent}) as service:
        hub, watching = await watched.follow(service)
        assert hub.followed_since is not None
        hub.followed_since -= 3600  # as if it had been watched for an hour
        late = "ALTER TABLE run_events ALTER COLUMN created_at SET DEFAULT now() - interval '4 seconds'"
        await database.run(lambda c: c.execute(late))
        watched.speak.set()

        def told(text: str) -> bool:
            buckets = samples(text, "outlast_event_lag_seconds_bucket")
            return buckets['le="2.5"'] < buckets['le="+Inf"']

        await scraped(service, told)
        watched.end.set()
        await watching


async def test_the_notification_queue_is_watched(settings: Settings) -> None:
    async with serving(settings, {"echo": echo}, workers=0) as service:
        text = await scraped(service, lambda _: True)
    assert 0 <= samples(text, "outlast_notification_queue_ratio")[""] < 1
