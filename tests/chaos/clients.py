"""Clients that lose their connection all the time, go on elsewhere, and keep every byte that they were sent."""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import aclosing, suppress
from dataclasses import dataclass, field
from typing import Any

import httpx

from tests.chaos import scenario
from tests.chaos.checker.violations import Violation

DONE = b"[DONE]"
_SILENCE_SECONDS = 4.0  # pings come each second: a stream so silent is cut off
_AGAIN = (429, 503)
_FINISHED_BEFORE, _GONE = 400, 404
_CHANGE_OF_MIND_SECONDS = 6.0
_MODES = ("stream", "stream", "stream", "poll", "keyed")
_FOREGROUND = ("foreground", "invoke")
_INVOKE_SECONDS = 60.0  # for a whole answer

FINISH, CANCEL, DELETE = "finish", "cancel", "delete"
_FATES = (*[FINISH] * 7, CANCEL, DELETE)


@dataclass
class Connection:
    """What came over one connection: the data of whole frames."""

    starting_after: int
    frames: list[tuple[int, bytes]] = field(default_factory=list[tuple[int, bytes]])
    done: bool = False
    """It ended with [DONE]."""


@dataclass
class Watched:
    """One run as a client saw it."""

    token: str
    agent: str
    mode: str
    conversation: str | None
    run: str | None = None
    """``resp_…``, once it is known."""
    connections: list[Connection] = field(default_factory=list[Connection])
    final: dict[str, Any] | None = None
    """The finished response, as it was read."""
    fate: str = FINISH
    """What its client wants to become of it."""
    deleted: bool = False
    """Its client was told so."""

    @property
    def cursor(self) -> int:
        """The last number that was seen."""
        return max((c.frames[-1][0] for c in self.connections if c.frames), default=-1)

    @property
    def ended(self) -> bool:
        return self.deleted or self.final is not None or any(connection.done for connection in self.connections)

    @property
    def may_end_as(self) -> frozenset[str]:
        """A run in the foreground is cancelled when its client was cut off, which only an unbroken answer rules out."""
        cut_off = self.mode in _FOREGROUND and not (self.ended and len(self.connections) <= 1)
        own = "failed" if self.agent == scenario.MISHAP else "completed"
        return frozenset({own, "cancelled"} if cut_off or self.fate == CANCEL else {own})


class Crowd:
    """All clients together, and what they have seen."""

    def __init__(self, urls: Sequence[str], seed: int) -> None:
        self.watched: list[Watched] = []
        self.violations: list[Violation] = []
        self.hops = 0
        self.over = False
        """No more new runs."""
        self.urls = urls
        self._seed = seed
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=20)
        timeout = httpx.Timeout(_SILENCE_SECONDS, connect=2.0)
        self._http = httpx.AsyncClient(timeout=timeout, limits=limits, trust_env=False)

    async def live(self, clients: int) -> None:
        """Until it is over and every client has seen the end of what it began."""
        async with self._http:
            await asyncio.gather(*(self._client(number) for number in range(clients)))

    async def _client(self, number: int) -> None:
        chance = random.Random(f"{self._seed} client {number}")
        turn = 0
        while not self.over:
            agent = chance.choice(scenario.AGENTS)
            conversation = f"conv-{number}-{turn}" if chance.random() < 0.3 and agent != scenario.MISHAP else None
            visits: list[Visit] = []
            for _ in range(chance.randint(2, 3) if conversation else 1):
                # What may end before its time would leave the others of its conversation without their expectation.
                modes, fates = (_MODES, (FINISH,)) if conversation else ((*_MODES, *_FOREGROUND), _FATES)
                token, mode, fate = f"c{number}.{turn}", chance.choice(modes), chance.choice(fates)
                watched = Watched(token, agent, mode, conversation, fate=fate)
                visits.append(Visit(self, watched, random.Random(chance.random())))
                turn += 1
            # The runs of a conversation are submitted one after the other, and none waits for the one before.
            for visit in visits:
                await visit.submit()
            await asyncio.gather(*(visit.follow() for visit in visits))

    def url(self, chance: random.Random) -> str:
        return chance.choice(self.urls)

    @property
    def http(self) -> httpx.AsyncClient:
        return self._http

    def complain(self, watched: Watched, what: str) -> None:
        self.violations.append(Violation("client", watched.token, what))


class Visit:
    """A client's way through one run."""

    def __init__(self, crowd: Crowd, watched: Watched, chance: random.Random) -> None:
        self._crowd = crowd
        self._chance = chance
        self.watched = watched

    async def submit(self) -> None:
        """Until the run's id is known. A request whose answer was lost is sent again: with its key, or as a new run."""
        self._crowd.watched.append(self.watched)
        while self.watched.run is None:
            with suppress(httpx.TransportError):
                await self._post()
            if self.watched.run is None:
                await self._pause()
                if self.watched.mode != "keyed":
                    self._try_another()

    def _try_another(self) -> None:
        """The one before may have been accepted all the same."""
        lost = self.watched
        token, _, number = lost.token.partition("x")
        token = f"{token}x{int(number or 0) + 1}"
        self.watched = Watched(token, lost.agent, lost.mode, lost.conversation, fate=lost.fate)
        self._crowd.watched.append(self.watched)

    async def _post(self) -> None:
        watched, url = self.watched, f"{self._crowd.url(self._chance)}/v1/responses"
        keyed, streamed = watched.mode == "keyed", watched.mode in ("stream", "foreground")
        background = watched.mode not in _FOREGROUND
        headers = {"idempotency-key": f"key-{watched.token}"} if keyed else {}
        body: dict[str, Any] = {"model": watched.agent, "input": watched.token, "stream": streamed}
        body["background"] = background
        if watched.conversation:
            body["conversation"] = watched.conversation
        if keyed and self._chance.random() < 0.3:  # go away before the answer can come
            with suppress(TimeoutError):
                async with asyncio.timeout(self._chance.random() * 0.05):
                    await self._crowd.http.post(url, json=body, headers=headers)
        if not streamed:
            patience = _SILENCE_SECONDS if background else _INVOKE_SECONDS
            answer = await self._crowd.http.post(
                url, json=body, headers=headers, timeout=patience, follow_redirects=True
            )
            if self._is_answered(answer):
                self._learn(answer.json()["id"])
                watched.final = None if background else answer.json()
            return
        async with self._crowd.http.stream("POST", url, json=body, headers=headers) as answer:
            if self._is_answered(answer):
                await self._receive(answer, Connection(-1))

    async def follow(self) -> None:
        """Until the end was seen; after a while the client may bring it about."""
        if self.watched.fate != FINISH:
            with suppress(TimeoutError):
                async with asyncio.timeout(self._chance.uniform(0, _CHANGE_OF_MIND_SECONDS)):
                    await self._follow()
            await self._decide()
        await self._follow()

    async def _decide(self) -> None:
        """Cancel the run, or delete it: once more until it was answered."""
        watched, decided = self.watched, False
        while not decided:
            url = f"{self._crowd.url(self._chance)}/v1/responses/{watched.run}"
            with suppress(httpx.TransportError):
                if watched.fate == CANCEL:
                    answer = await self._crowd.http.post(f"{url}/cancel")
                    decided = answer.status_code == _FINISHED_BEFORE or self._is_answered(answer)
                else:
                    answer = await self._crowd.http.delete(url)
                    # Not there: an earlier request has done it, whose answer was lost.
                    decided = watched.deleted = answer.status_code == _GONE or self._is_answered(answer)
            await self._pause()
        if watched.deleted:
            await self._miss()

    async def _miss(self) -> None:
        """What was deleted is not there any more, at any replica."""
        for url in self._crowd.urls:
            status = None
            while status is None or status in _AGAIN:
                with suppress(httpx.TransportError):
                    status = (await self._crowd.http.get(f"{url}/v1/responses/{self.watched.run}")).status_code
                await self._pause()
            if status != _GONE:
                self._crowd.complain(self.watched, f"it was deleted, and GET is answered with {status}")

    async def _follow(self) -> None:
        while not self.watched.ended:
            with suppress(httpx.TransportError):
                if self.watched.mode == "poll":
                    await self._poll()
                else:
                    await self._stream()
            if not self.watched.ended:
                self._crowd.hops += 1
                await self._pause()

    async def _poll(self) -> None:
        url = f"{self._crowd.url(self._chance)}/v1/responses/{self.watched.run}"
        answer = await self._crowd.http.get(url)
        if self._is_answered(answer):
            found = answer.json()
            if found["status"] not in ("queued", "in_progress"):
                self.watched.final = found

    async def _stream(self) -> None:
        cursor = self.watched.cursor
        after = f"&starting_after={cursor}" if cursor >= 0 else ""
        url = f"{self._crowd.url(self._chance)}/v1/responses/{self.watched.run}?stream=true{after}"
        async with self._crowd.http.stream("GET", url) as answer:
            if self._is_answered(answer):
                await self._receive(answer, Connection(cursor))

    def _is_answered(self, answer: httpx.Response) -> bool:
        if answer.status_code == 200:
            return True
        if answer.status_code not in _AGAIN:
            self._crowd.complain(self.watched, f"{answer.request.method} was answered with {answer.status_code}")
        elif "retry-after" not in answer.headers:
            self._crowd.complain(self.watched, f"a {answer.status_code} does not say when to try again")
        return False

    def _learn(self, run: str) -> None:
        if self.watched.run not in (None, run):
            self._crowd.complain(self.watched, f"the same key found {self.watched.run} and {run}")
        self.watched.run = run

    async def _receive(self, answer: httpx.Response, connection: Connection) -> None:
        """Take what comes, until it ends or this client has had enough of this replica."""
        self.watched.connections.append(connection)
        leave = self._leaving()
        async with aclosing(_frames(answer.aiter_raw())) as frames:
            async for data in frames:
                if data == DONE:
                    connection.done = True
                    continue
                event = json.loads(data)
                connection.frames.append((event["sequence_number"], data))
                if event["type"] == "response.created":
                    self._learn(event["response"]["id"])
                if leave(len(connection.frames)):
                    return
        if not connection.done:
            self._crowd.complain(self.watched, "a stream ended as if it were complete, without [DONE]")

    def _leaving(self) -> Callable[[int], bool]:
        """When to hang up: after so many events, or so many seconds."""
        events = self._chance.choice((1, 10, 30, 10_000, 10_000))
        until = time.monotonic() + self._chance.choice((0.5, 3, 30))
        return lambda seen: seen >= events or time.monotonic() > until

    async def _pause(self) -> None:
        await asyncio.sleep(self._chance.uniform(0.05, 0.5))


async def _frames(pieces: AsyncIterator[bytes]) -> AsyncGenerator[bytes]:
    """The data of every whole frame; comments are left out, and what is cut off at the end is none."""
    buffer = b""
    async for piece in pieces:
        *frames, buffer = (buffer + piece).split(b"\n\n")
        for frame in frames:
            for line in frame.split(b"\n"):
                if line.startswith(b"data: "):
                    yield line[6:]
