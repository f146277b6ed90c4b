"""What a user does with the stack, through the proxy, while parts of it are killed. A check raises what is wrong."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import httpx
import openai
import psycopg

from tests.containers.images import Refused
from tests.containers.stack import Replica, Stack
from tests.support.deployment.compose import seconds
from tests.support.waiting import until_sync

LONG = "what is a lease? what is a fence? what is an attempt? what is the sweep?"
# Answered in much more than the OUTLAST_DISCONNECT_SECONDS of the stack.
LONGER = f"{LONG} what is a cursor? what is a thread? what is a doorbell? what is a principal?"
_LEAVERS = 8
TERMINAL = ("response.completed", "response.failed", "response.incomplete")


class Smoke:
    def __init__(self, stack: Stack, url: str) -> None:
        self._stack = stack
        self._url = url
        self._client = openai.OpenAI(base_url=url, api_key="none", max_retries=0, timeout=60)

    def invokes(self) -> str:
        response = self._client.responses.create(model="assistant", input="12 * (3 + 4)")
        _expect("84" in response.output_text, response.output_text)
        return f"12 * (3 + 4): {response.status}"

    def streams_event_by_event(self) -> str:
        """Nothing holds events back: the first is here before the last one is made."""
        arrived = [(time.time(), event) for event in self._client.responses.create(input=LONG, stream=True)]
        _expect(arrived[-1][1].type == "response.completed", arrived[-1][1].type)
        first, made = arrived[0][0], float(getattr(arrived[-1][1], "created_at"))  # noqa: B009 — not in the SDK's types
        _expect(first < made, f"the first event came {first - made:.2f} s after the last one was made")
        apart = len({round(at, 2) for at, _ in arrived})
        _expect(apart > 10, f"{len(arrived)} events came at {apart} moments")
        return f"{len(arrived)} events, the first one {made - first:.2f} s before the last was made"

    def resumes_in_the_background(self) -> str:
        with self._begun() as (run, seen):
            pass
        numbers = [*seen, *self._rest(run, seen[-1])]
        _expect(numbers == list(range(len(numbers))), numbers)
        return f"left after event {seen[-1]}, resumed to {numbers[-1]}"

    def uses_all_replicas(self) -> str:
        def served() -> list[float]:
            return [_accepted(f"http://{api.host}:{api.port}/metrics") for api in self._stack.replicas["api"]]

        until_sync(lambda: self.invokes() and all(served()))
        return f"runs accepted by each: {served()}"

    def is_cancelled_with_its_client(self) -> str:
        """Clients that leave foreground requests are seen through the proxy, all of them."""
        with ThreadPoolExecutor(_LEAVERS) as leavers:
            ended = list(leavers.map(self._left, (f"leaver-{number}" for number in range(_LEAVERS))))
        _expect(set(ended) == {"cancelled"}, f"the runs of clients that left are {ended}")
        return f"the runs of {_LEAVERS} clients that left: {ended[0]}"

    def _left(self, who: str) -> str | None:
        """How the run ends of a client that has left."""
        try:
            httpx.post(f"{self._url}/responses", json={"input": LONGER, "metadata": {"who": who}}, timeout=0.5)
            raise Refused("the answer was not long enough to leave it")
        except httpx.ReadTimeout:
            return until_sync(lambda: self._status_of(who), seconds=30)

    def outlives_an_api(self) -> str:
        """The replica that streams is killed; the client goes on through the proxy, which leaves the dead one out."""
        with self._begun() as (run, seen):
            api = self._serving()
            api.kill()
        rest = self._rest(run, seen[-1])
        numbers = [*seen, *rest]
        _expect(numbers == list(range(len(numbers))), numbers)
        for _ in range(10):
            _expect(httpx.get(f"{self._url}/models").status_code == 200, "a request met the dead replica")
        return f"{api.name} killed after event {seen[-1]}, resumed to {numbers[-1]}; 10 of 10 requests served"

    def outlives_a_worker(self) -> str:
        """The worker that has the run is killed; the same stream goes on."""
        stream = self._client.responses.create(input=LONG, stream=True, background=True)
        numbers, killed = list[int](), ""
        for event in stream:
            numbers.append(event.sequence_number)
            if not killed and event.type == "response.output_text.delta":
                killed = self._kill_the_worker()
        _expect(event.type == "response.completed", event.type)  # pyright: ignore[reportPossiblyUnboundVariable]
        _expect(numbers == list(range(len(numbers))), numbers)
        return f"{killed} killed, one stream of {len(numbers)} events"

    def stops_in_time(self) -> str:
        """Everybody who is still there is asked at once, in the middle of an answer."""
        leavers = [replica for replica in self._stack.everything if replica.alive.poll() is None]
        with self._begun():
            began = time.monotonic()
            for replica in leavers:
                replica.ask_to_stop()
        took = dict[str, float]()
        for replica in leavers:
            grace = _grace(replica.service)
            code = replica.alive.wait(max(0.1, began + grace - time.monotonic()))
            _expect(code == 0, f"{replica.name} ended with {code}:\n{replica.said}")
            took[replica.name] = round(time.monotonic() - began, 1)
        return f"seconds: {took}"

    # -- steps ---------------------------------------------------------------------------------------------------------

    @contextmanager
    def _begun(self) -> Iterator[tuple[str, list[int]]]:
        """A run in the background, its words on their way, and the numbers seen; the stream breaks off afterwards."""
        stream = self._client.responses.create(input=LONG, stream=True, background=True)
        run, seen = "", list[int]()
        for event in stream:
            seen.append(event.sequence_number)
            run = run or str(getattr(event, "response").id)  # noqa: B009
            if event.type == "response.output_text.delta":
                break
        yield run, seen
        stream.close()

    def _rest(self, run: str, after: int) -> list[int]:
        def follow() -> list[int]:
            numbers = list[int]()
            try:
                for event in self._client.responses.retrieve(run, stream=True, starting_after=after):
                    numbers.append(event.sequence_number)
                    if event.type in TERMINAL:
                        return numbers
            except (openai.APIError, httpx.HTTPError):
                pass  # the proxy's connection was to the dead replica; a client tries again
            return []

        return until_sync(follow, seconds=60)

    def _serving(self) -> Replica:
        """The replica with an open stream."""
        apis = self._stack.replicas["api"]
        open_streams = {api.name: _gauge(f"http://{api.host}:{api.port}/metrics", "outlast_streams") for api in apis}
        return max(apis, key=lambda api: open_streams[api.name])

    def _kill_the_worker(self) -> str:
        """The one that has the only run."""
        owner = str(self._ask("SELECT owner FROM outlast.run_leases"))
        pid = int(owner.rsplit(":", 2)[1])
        worker = next(worker for worker in self._stack.replicas["worker"] if worker.alive.pid == pid)
        worker.kill()
        return worker.name

    def _status_of(self, who: str) -> str | None:
        return self._ask(f"SELECT status FROM outlast.runs WHERE request LIKE '%{who}%' AND finished_at IS NOT NULL")

    def _ask(self, query: str) -> Any:
        with psycopg.connect(self._stack.database_url) as connection:
            row = connection.execute(query).fetchone()  # type: ignore[arg-type]
        return row and row[0]


def _grace(service: dict[str, Any]) -> float:
    return seconds(service["stop_grace_period"])


def _expect(holds: bool, otherwise: object) -> None:
    if not holds:
        raise Refused(str(otherwise))


def _accepted(url: str) -> float:
    return _gauge(url, "outlast_runs_accepted_total")


def _gauge(url: str, name: str) -> float:
    lines = httpx.get(url).text.splitlines()
    return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith(name) and not line.startswith("#"))
