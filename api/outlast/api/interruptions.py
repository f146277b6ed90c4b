"""Requests that the end of the process interrupts: the client is told to come again."""

from __future__ import annotations

import asyncio

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from outlast.shared.domain.errors import Stopping

from .errors import answer


class Interruptions:
    """Answers a cancelled request with 503. The server cancels what outlasts its shutdown, and would answer 500."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        answered = False

        async def noting(message: Message) -> None:
            nonlocal answered
            answered = True
            await send(message)

        try:
            await self._app(scope, receive, noting)
        except asyncio.CancelledError:
            if scope["type"] != "http" or answered:
                raise
            await answer(Stopping())(scope, receive, send)
