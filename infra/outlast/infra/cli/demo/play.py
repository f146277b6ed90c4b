"""The demo itself: an answer is on its way; its worker is killed, then its connection; nothing of it is lost."""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from typing import Any

from outlast.infra.cli.hello import QUESTION
from outlast.infra.cli.narration import call, result_of
from outlast.shared.connections import Database
from outlast.shared.domain.errors import OutlastError
from outlast.shared.domain.ids import parse_response_id
from outlast.shared.store import leases
from outlast.shared.store.leases import Holder

from .proof import Finding, findings, superseded_items
from .screen import Screen
from .stage import Part, Stage
from .viewer import Cut, Ended, Seen, Viewer, read_log

_TICK_SECONDS = 0.1
_SILENCE_SECONDS = 30.0
_LEAST_WORDS, _MOST_WORDS = 30, 60  # of the answer before something is killed


class Play:
    def __init__(self, stage: Stage, screen: Screen) -> None:
        self._stage = stage
        self._screen = screen
        self._began = time.monotonic()
        self._queue: asyncio.Queue[Seen] = asyncio.Queue()
        self._events: list[dict[str, Any]] = []
        self._gaps: list[float] = []
        self._heard_at = self._began
        self._cut = False
        self._connections = 1
        self._ended = False

    async def perform(self) -> bool:
        """True when all that is promised held. Raises OutlastError and EmbeddedError when the demo cannot go on."""
        async with (await self._set_up()).pooled(max_connections=1) as database:
            viewer = self._ask()
            spares = [asyncio.create_task(self._stage.add_worker())]
            try:
                await self._show_words(spares[0])
                spares.append(asyncio.create_task(self._stage.add_api()))
                await self._kill_worker(database, spares[0])
                await self._show_words(spares[1])
                await self._kill_api()
            finally:
                for spare in spares:
                    spare.cancel()
            while not self._ended:
                self._show(await self._next())
        return await self._prove(viewer)

    @property
    def seconds(self) -> float:
        """Since the beginning."""
        return time.monotonic() - self._began

    # -- acts ----------------------------------------------------------------------------------------------------------

    async def _set_up(self) -> Database:
        self._screen.tell("demo", "an answer outlives the worker that gives it and the connection that brings it")
        opening = asyncio.create_task(self._stage.open())
        try:
            while not (await asyncio.wait({opening}, timeout=_TICK_SECONDS))[0]:
                self._screen.tick("start", self.seconds, "Postgres, Valkey, an API and a worker are starting")
        finally:
            opening.cancel()
        database = opening.result()
        versions = f"Postgres {self._stage.postgres.version}, Valkey {self._stage.valkey.version}"
        text = f"{versions}, an API and a worker in {self.seconds:.1f} s; one more API and worker follow"
        self._screen.tell("start", text)
        return database

    def _ask(self) -> Viewer:
        loop = asyncio.get_running_loop()

        def see(seen: Seen) -> None:
            with suppress(RuntimeError):  # the demo is over
                loop.call_soon_threadsafe(self._queue.put_nowait, seen)

        self._screen.tell("ask", QUESTION)
        self._screen.space()
        viewer = Viewer(self._stage.urls, {"input": QUESTION}, see)
        viewer.start()
        self._heard_at = time.monotonic()
        return viewer

    async def _kill_worker(self, database: Database, spare: asyncio.Task[None]) -> None:
        """Kill the worker that has the run, and show the time until another one goes on with it."""
        holder = await self._holder(database)
        worker = next((part for part in self._stage.workers if holder and part.pid == holder.pid), None)
        if holder is None or worker is None:
            raise OutlastError("The run ended before its worker could be killed.")
        killed_at = self._kill(worker, "it runs the agent")
        lease_ends = killed_at + holder.seconds_left
        while (event := await self._next(_TICK_SECONDS)) is None or "outlast" not in event:
            self._show(event)
            if self._ended:
                raise OutlastError("No other worker has taken the run over.")
            if event is None:
                now = time.monotonic()
                said = _said_of_lease(lease_ends - now, worker_is_ready=spare.done())
                self._screen.tick("pause", now - killed_at, said)
        self._gaps.append(time.monotonic() - killed_at)
        self._tell_next_attempt(event, await self._holder(database))
        self._show(event)

    async def _kill_api(self) -> None:
        """Kill the API that the client is connected to, and show how it goes on at the other one."""
        if self._ended:
            raise OutlastError("The run ended before its API could be killed.")
        killed_at = self._kill(self._stage.apis[0], "we are connected to it")
        while not self._cut:
            self._show(await self._next())
        last = self._events[-1]["sequence_number"]
        event = await self._next()
        self._gaps.append(time.monotonic() - killed_at)
        path = f"/v1/responses/{self._response_id[:11]}…?stream=true&starting_after={last}"
        self._screen.tell("resume", f"{self._gaps[-1]:.1f} s later at the other API: GET {path}", "green")
        self._show(event)

    async def _prove(self, viewer: Viewer) -> bool:
        log = await asyncio.to_thread(read_log, self._stage.urls[1], self._response_id)
        found = [*findings(viewer.frames, log), self._survived()]
        self._screen.space()
        self._screen.tell("proof", "what this client received, held against the log, read again from 0")
        for finding in found:
            self._screen.tell("✓" if finding.holds else "✗", finding.text, "green" if finding.holds else "red")
        return all(finding.holds for finding in found)

    def _survived(self) -> Finding:
        attempts = 1 + sum("outlast" in event for event in self._events)
        gaps = " and for ".join(f"{gap:.1f} s" for gap in self._gaps)
        return Finding(
            (attempts, self._connections) == (2, 2),
            f"{attempts} attempts, {self._connections} connections; the stream paused for {gaps}",
        )

    # -- what happens in them ------------------------------------------------------------------------------------------

    async def _next(self, patience_seconds: float = _SILENCE_SECONDS) -> dict[str, Any] | None:
        """The next event; None when there was none in that time, or the stream was cut or has ended."""
        try:
            seen = await asyncio.wait_for(self._queue.get(), patience_seconds)
        except TimeoutError:
            if time.monotonic() - self._heard_at < _SILENCE_SECONDS:
                return None
            raise OutlastError(f"Nothing has come for {_SILENCE_SECONDS:g} s.") from None
        self._heard_at = time.monotonic()
        if isinstance(seen, Ended):
            self._ended = True
            if seen.error is not None:
                raise seen.error
        elif isinstance(seen, Cut):
            self._cut = True
        else:
            self._connections += self._cut
            self._cut = False
            self._events.append(seen)
            return seen
        return None

    async def _show_words(self, spare: asyncio.Task[None]) -> None:
        """Show some of the answer, and more of it while the spare process is not there."""
        words = 0
        while not self._ended and (words < (_LEAST_WORDS if spare.done() else _MOST_WORDS)):
            event = await self._next(_TICK_SECONDS)
            self._show(event)
            words += event is not None and event["type"] == "response.output_text.delta"
        if spare.done():
            spare.result()

    def _show(self, event: dict[str, Any] | None) -> None:
        match event:
            case {"type": "response.output_text.delta"}:
                self._screen.answer(event["sequence_number"], event["delta"])
            case {"type": "response.output_item.done", "item": {"type": "mcp_call"}}:
                result = result_of(event["item"]).strip().partition("\n")[0]
                self._screen.tell_briefly(str(event["sequence_number"]), f"{call(event['item'])} → {result}")
            case _:
                pass

    def _kill(self, part: Part, why: str) -> float:
        self._screen.space()
        part.process.kill()
        self._screen.tell("kill", f"kill -9 {part.pid}  ({why}: {part.command})", "red")
        return time.monotonic()

    def _tell_next_attempt(self, event: dict[str, Any], holder: Holder | None) -> None:
        """Where it begins follows from what it takes back: everything, or only what came after its checkpoint."""
        attempt = event["outlast"]["attempt"]
        taken_back = set(superseded_items([event]))
        items = [e["item"]["id"] for e in self._events if e["type"] == "response.output_item.added"]
        kept = len(set(items) - taken_back)
        how = f"from its checkpoint, {_items(kept)} kept" if kept else "from the input"
        where = f" on pid {holder.pid}" if holder else ""
        self._screen.tell(
            "resume",
            f"{self._gaps[-1]:.1f} s later on the same connection: attempt {attempt}{where}, {how}, "
            f"{_items(len(taken_back))} taken back",
            "green",
        )

    async def _holder(self, database: Database) -> Holder | None:
        run_id = parse_response_id(self._response_id)
        assert run_id is not None, "the first event has it"
        return await database.run(lambda c: leases.holder(c, run_id))

    @property
    def _response_id(self) -> str:
        return self._events[0]["response"]["id"]


def _said_of_lease(seconds_left: float, *, worker_is_ready: bool) -> str:
    if seconds_left > 0:
        return f"the dead worker's lease ends in {seconds_left:.1f} s"
    what = "the other worker may have the run" if worker_is_ready else "the other worker is still starting"
    return f"the dead worker's lease has ended: {what}"


def _items(count: int) -> str:
    return f"{count} item" if count == 1 else f"{count} items"
