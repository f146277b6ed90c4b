"""Server-sent events over raw ASGI: frames are encoded once per run and sent as they are to every viewer."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Mapping

import structlog
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from outlast.shared.background import Background
from outlast.shared.domain.runs import Run

from . import presence
from .services import Services
from .tail import Batch, StreamCut, Viewer

log = structlog.get_logger()

PING = b": ping\n\n"
DONE = b"data: [DONE]\n\n"
HEADERS = {
    "content-type": "text/event-stream; charset=utf-8",
    "cache-control": "no-cache, no-transform",
    "x-accel-buffering": "no",
}


class EventStream(Response):
    """The events of a run after a number, as they are or as they come, then ``[DONE]``.

    A stream that cannot go on is aborted: the connection closes without the last chunk, since a clean end would look
    like success. The client asks again with its cursor, here or at another replica.
    """

    def __init__(
        self,
        services: Services,
        run: Run,
        *,
        starting_after: int = -1,
        ids: bool = False,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(headers={**HEADERS, **(headers or {})})
        self._services = services
        self._tail = services.tail
        self._run = run
        self._starting_after = starting_after
        self._ids = ids
        self._client_left = False
        self._background = Background()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": self._start_headers()})
        if self._run.status.terminal and self._starting_after >= self._run.last_seq:
            await send({"type": "http.response.body", "body": DONE})
            return
        async with self._tail.viewing(self._run, self._starting_after) as viewer:
            watch = self._background.start(self._watch(receive, viewer))
            try:
                await self._send_all(viewer, send)
            except StreamCut:
                pass  # without the last chunk: the server closes the connection
            except asyncio.CancelledError:
                if not viewer.is_cut:
                    raise
                viewer.task.uncancel()  # by the tail, because this client takes nothing
            finally:
                watch.cancel()
        if self._client_left:
            await presence.left(self._services, self._run)

    async def _watch(self, receive: Receive, viewer: Viewer) -> None:
        """After a disconnect send() silently does nothing, so the stream has to be told."""
        while (await receive())["type"] != "http.disconnect":
            pass
        self._client_left = not viewer.is_cut
        viewer.cut()

    def _start_headers(self) -> list[tuple[bytes, bytes]]:
        return [(name, value) for name, value in self.raw_headers if name != b"content-length"]

    async def _send_all(self, viewer: Viewer, send: Send) -> None:
        if self._ids:  # a browser reconnects by itself: not all of them at once
            await _send(viewer, send, b"retry: %d\n\n" % random.randint(1000, 3000))
        while True:
            batch = await self._tail.read(viewer)
            if batch.frames or not batch.ended:
                await _send(viewer, send, self._encode(batch))
            if batch.ended:
                await send({"type": "http.response.body", "body": DONE})
                return

    def _encode(self, batch: Batch) -> bytes:
        if not batch.frames:
            return PING
        if not self._ids:
            return b"".join(batch.frames)
        return b"".join(b"id: %d\n%b" % (n, frame) for n, frame in enumerate(batch.frames, batch.first_seq))


async def _send(viewer: Viewer, send: Send, body: bytes) -> None:
    viewer.sending_since = asyncio.get_running_loop().time()
    await send({"type": "http.response.body", "body": body, "more_body": True})
    viewer.sending_since = None
