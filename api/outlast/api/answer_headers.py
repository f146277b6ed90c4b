"""What every answer has in its head: an id, which is in each log line made on its way, and limits for browsers."""

from __future__ import annotations

import os
from collections.abc import Collection

import structlog
from starlette.types import ASGIApp, Message, Receive, Scope, Send

REQUEST_ID = "x-request-id"
FOR_BROWSERS = (
    (b"content-security-policy", b"default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"referrer-policy", b"no-referrer"),
    (b"x-content-type-options", b"nosniff"),
)
"""An answer is data: a browser neither executes it, nor shows it in the page of another site."""


def completed(headers: Collection[tuple[bytes, bytes]], request_id: str) -> list[tuple[bytes, bytes]]:
    """The headers of an answer with those of every answer. Its own win."""
    own = {name for name, _ in headers}
    limits = [header for header in FOR_BROWSERS if header[0] not in own]
    return [*headers, *limits, (REQUEST_ID.encode(), request_id.encode())]


class AnswerHeaders:
    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id = f"req_{os.urandom(16).hex()}"
        scope.setdefault("state", {})["request_id"] = request_id  # for the answer to what is caught outside of this

        async def send_completed(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = completed(message.get("headers", ()), request_id)
            await send(message)

        with structlog.contextvars.bound_contextvars(request_id=request_id):
            await self._app(scope, receive, send_completed)
