"""The tail of every watched log in this process, gap-free.

Why no event is lost, doubled or reordered (docs/event-log.md has the long form): appends of a run commit in order
of number, so every read sees a prefix; a hub is registered before its first read, and marked dirty by every hint,
after every LISTEN and by the poll; the mark is cleared before the read; a hub takes only what continues it.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncGenerator, Iterable
from contextlib import asynccontextmanager
from uuid import UUID

import structlog

from outlast.api.metrics.instruments import Metrics
from outlast.shared.background import Background
from outlast.shared.connections import Database
from outlast.shared.domain.errors import Unavailable
from outlast.shared.domain.events import TERMINAL_TYPES, Chunk
from outlast.shared.domain.ids import response_id
from outlast.shared.domain.runs import Run
from outlast.shared.notifications import listen
from outlast.shared.rest import Rest
from outlast.shared.settings import Settings
from outlast.shared.store import events
from outlast.shared.wire import type_of

from .hub import Batch, Hub, StreamCut, Viewer, frame

log = structlog.get_logger()

_LINGER_SECONDS = 5.0  # a reconnecting client finds its hub still there
_WHEEL_SECONDS = 1.0
_BROKEN_PAUSE_SECONDS = 1.0  # after what nobody expected
_UNHEARD_POLL_SECONDS = 0.25  # while LISTEN does not work, the poll is all there is


class Tail:
    """Hands out events of any run as they are committed by whichever worker."""

    def __init__(self, database: Database, settings: Settings, rest: Rest, measured: Metrics) -> None:
        self._database = database
        self._metrics = measured
        self._settings = settings
        self._rest = rest
        self._reader = database.dedicated()
        self._hubs: dict[UUID, Hub] = {}
        self._dirty: set[UUID] = set()
        self._something_dirty = asyncio.Event()
        self._now = asyncio.get_running_loop().time
        self.listening = False
        self.stopping = False
        self.events_taken = 0
        """By all viewers, since this replica started."""

    @property
    def streams(self) -> int:
        return sum(len(hub.viewers) for hub in self._hubs.values())

    def position(self, run_id: UUID) -> int | None:
        """The next number that this process has not read of a run, while somebody watches it here."""
        hub = self._hubs.get(run_id)
        return hub.next if hub else None

    @asynccontextmanager
    async def running(self) -> AsyncGenerator[Tail]:
        loops = [self._read_forever(), self._poll_forever(), self._turn_wheel()]
        if self._settings.tail == "listen":
            loops.append(self._listen_forever())
        background = Background()
        for loop in loops:
            background.start(loop)
        try:
            yield self
        finally:
            self.cut_all()
            await background.cancel()
            await self._reader.close()

    def cut_all(self) -> None:
        """Abort every stream, now and from now on: their clients go on at another replica."""
        self.stopping = True
        for hub in self._hubs.values():
            hub.cut()

    # -- what a stream does --------------------------------------------------------------------------------------------

    @asynccontextmanager
    async def viewing(self, run: Run, starting_after: int) -> AsyncGenerator[Viewer]:
        """Watch a run from the event after this number (-1: from the first)."""
        self._rest.stir()
        hub = self._hubs.get(run.run_id)
        if hub is not None and hub.closed and hub.reopened < run.reopened:
            hub.cut()  # its end was withdrawn; who has not been sent that goes on with what came instead
            hub = None
        if hub is None:
            # Never beyond what exists, or a later viewer could not be served up to where the ring begins.
            hub = self._hubs[run.run_id] = Hub(run.run_id, min(starting_after, run.last_seq) + 1, run.reopened)
        # A hub that is watched is kept up to date; one that was not may have missed what has been announced meanwhile.
        if not hub.viewers or run.last_seq >= hub.next:
            self._mark(run.run_id)
        viewer = Viewer(hub, starting_after + 1, self._now())
        hub.viewers.add(viewer)
        if self.stopping:
            viewer.cut()
        try:
            yield viewer
        finally:
            hub.viewers.discard(viewer)
            if not hub.viewers:
                hub.idle_since, hub.followed_since = self._now(), None

    async def read(self, viewer: Viewer) -> Batch:
        """The next events for this viewer; waits for them. Raises StreamCut when there can be no more."""
        while True:
            if viewer.behind_ring:
                batch = await self._read_history(viewer)
            else:
                batch = viewer.take()
            if batch is not None:
                self.events_taken += len(batch.frames)
                viewer.quiet_since = self._now()
                return batch
            await viewer.wait()
            if self._quiet_for(viewer) >= self._settings.ping_seconds:
                viewer.quiet_since = self._now()
                return Batch(viewer.cursor, [], ended=False)

    async def wait_for_end(self, run: Run, seconds: float | None = None) -> None:
        """Until the run has ended or the time is over."""
        try:
            async with asyncio.timeout(seconds), self.viewing(run, run.last_seq) as viewer:
                while not (await self.read(viewer)).ended:
                    pass
        except TimeoutError:
            return

    def _quiet_for(self, viewer: Viewer) -> float:
        return self._now() - viewer.quiet_since

    async def _read_history(self, viewer: Viewer) -> Batch:
        """A page from before the ring, for this viewer alone. It may reach into the ring; the cursor only moves on."""
        if viewer.is_cut:
            raise StreamCut
        run_id, cursor = viewer.hub.run_id, viewer.cursor
        try:
            pages = await self._database.run(lambda c: events.read_from(c, [(run_id, cursor)]), patience_seconds=30)
        except Unavailable:
            raise StreamCut from None
        lines = [line for chunk in pages.get(run_id, ()) for line in chunk.lines_from(cursor)]
        if not lines:  # it was there: the run has been deleted
            raise StreamCut
        ended = type_of(lines[-1]) in TERMINAL_TYPES
        if viewer.hub.closed and cursor + len(lines) >= viewer.hub.next and not ended:
            raise StreamCut  # the end that the hub has read was withdrawn
        viewer.cursor = cursor + len(lines)
        return Batch(cursor, [frame(line) for line in lines], ended)

    # -- what keeps the hubs up to date --------------------------------------------------------------------------------

    def _mark(self, run_id: UUID) -> None:
        self._dirty.add(run_id)
        self._something_dirty.set()

    def _mark_all(self) -> None:
        for run_id in self._hubs:
            self._mark(run_id)

    def _hint(self, heads: Iterable[tuple[UUID, int]]) -> None:
        """A number is only a hint: a fenced-off worker may announce one that was never committed."""
        for run_id, last_seq in heads:
            hub = self._hubs.get(run_id)
            if hub is not None and last_seq >= hub.next:
                self._mark(run_id)

    async def _read_forever(self) -> None:
        while True:
            await self._something_dirty.wait()
            try:
                await self.read_once()
            except Exception:  # a loop that ends would leave every stream of this replica waiting for ever
                log.exception("reader.broke")
                self._mark_all()
                await asyncio.sleep(_BROKEN_PAUSE_SECONDS)

    async def read_once(self) -> None:
        """One query for all runs that have grown."""
        self._something_dirty.clear()
        taken, self._dirty = self._dirty, set()  # cleared before the read: a hint during it marks again
        hubs = [hub for run_id in taken if (hub := self._hubs.get(run_id)) and hub.viewers and not hub.closed]
        if not hubs:
            return
        try:
            pages = await self._reader.run(lambda c: events.read_from(c, [(hub.run_id, hub.next) for hub in hubs]))
        except Unavailable:
            for hub in hubs:
                self._mark(hub.run_id)
            await asyncio.sleep(random.uniform(0.05, 0.2))
            return
        for hub in hubs:
            page = pages.get(hub.run_id, ())
            if page:
                self._measure(hub, page)
                hub.extend(page)
                hub.wake()
                if not hub.closed and events.may_be_cut(page):
                    self._mark(hub.run_id)
                    continue
            if hub.followed_since is None and hub.viewers:
                hub.followed_since = self._now()

    def _measure(self, hub: Hub, page: Iterable[Chunk]) -> None:
        """How late events reach those who wait for them. What was there before they came was not waited for."""
        if hub.followed_since is None:
            return
        followed = self._now() - hub.followed_since
        for chunk in page:  # a compacted one tells the age of its first event
            if chunk.first_seq >= hub.next and chunk.age_seconds <= followed:
                self._metrics.event_lag_seconds.observe(chunk.age_seconds)

    async def _listen_forever(self) -> None:
        while True:
            await self._rest.over()
            try:
                async for heads in listen(self._database, wanted=lambda: not self._rest.resting):
                    if heads:
                        self._hint(heads)
                    else:
                        self.listening = True
                        self._mark_all()  # what committed before LISTEN took effect was not notified
                self.listening = False
            except Unavailable as error:
                if self.listening:
                    log.warning("listener.lost", error=error.message)
                self.listening = False
                await asyncio.sleep(random.uniform(0.05, 0.5))
            except Exception:  # the poll goes on meanwhile
                log.exception("listener.broke")
                self.listening = False
                await asyncio.sleep(_BROKEN_PAUSE_SECONDS)

    async def _poll_forever(self) -> None:
        while True:
            interval = self._settings.poll_interval_seconds
            await asyncio.sleep(interval if self.listening else min(interval, _UNHEARD_POLL_SECONDS))
            try:
                await self.poll_once()
            except Exception:  # the next round is soon
                log.exception("poll.broke")

    async def poll_once(self) -> None:
        """The safety net: ask for the heads of all watched runs."""
        watched = [hub for hub in self._hubs.values() if hub.viewers]
        if not watched:
            return
        self._rest.stir()
        try:
            heads = await self._database.run(
                lambda c: events.heads(c, [hub.run_id for hub in watched]), patience_seconds=0
            )
        except Unavailable:
            return
        self._hint(heads.items())
        for hub in watched:
            if hub.run_id not in heads:  # deleted
                hub.cut()

    async def _turn_wheel(self) -> None:
        """One timer for all streams: signs of life, clients that take nothing, what is no longer needed."""
        while True:
            await asyncio.sleep(min(_WHEEL_SECONDS, self._settings.ping_seconds / 4))
            now = self._now()
            for hub in list(self._hubs.values()):
                hub.forget_seen()
                if not hub.viewers and now - hub.idle_since > _LINGER_SECONDS:
                    del self._hubs[hub.run_id]
                for viewer in hub.viewers:
                    self._look_after(viewer, now)

    def _look_after(self, viewer: Viewer, now: float) -> None:
        if viewer.sending_since is not None:
            if now - viewer.sending_since > self._settings.slow_client_seconds and not viewer.is_cut:
                log.warning("stream.slow_client", run=response_id(viewer.hub.run_id), cursor=viewer.cursor)
                viewer.cut()
                viewer.task.cancel()  # it waits in send(), which nothing else can end
        elif now - viewer.quiet_since >= self._settings.ping_seconds:
            viewer.wake()
