"""Requests that are cancelled because the server is being stopped."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from outlast.api.interruptions import Interruptions

START = {"type": "http.response.start", "status": 200, "headers": []}


@pytest.mark.parametrize("begins", [False, True])
async def test_an_interrupted_request_is_answered_with_503_unless_it_was_answered(begins: bool) -> None:
    sent: list[Any] = []
    under_way = asyncio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if begins:
            await send(START)
        under_way.set()
        await asyncio.Event().wait()

    async def send(message: Any) -> None:
        sent.append(message)

    async def receive() -> Any:
        return {"type": "http.disconnect"}

    request = asyncio.create_task(Interruptions(app)({"type": "http"}, receive, send))
    await under_way.wait()
    request.cancel()
    await asyncio.wait([request])

    assert request.cancelled() is begins
    if begins:
        assert sent == [START]
    else:
        assert (sent[0]["status"], dict(sent[0]["headers"])[b"retry-after"]) == (503, b"1")
        assert b'"code":"unavailable"' in sent[1]["body"]
