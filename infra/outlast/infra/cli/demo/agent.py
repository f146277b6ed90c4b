"""The agent of a demo without a checkout: it tells, word by word, what is about to happen to it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from outlast.agent import Context, Emission, Request, ToolCall, ToolResult

_TEXT = """\
I am a small agent without a language model. Each word that you read is an event with a number, and it was
committed to Postgres before it was sent to you.

In a moment my worker is killed. Nobody tells Postgres; it finds out because the worker no longer renews its
lease. Then another worker takes my run over, and your stream goes on with the next number on the same
connection. The words that I had said before are taken back by name, and I say them again.

After that the server that you are connected to is killed too. You come back to another one with the number
of the last event you have seen, and miss nothing."""
_PACE_SECONDS = 0.02


async def agent(request: Request, _context: Context) -> AsyncIterator[Emission | str]:
    yield ToolCall("count_words", {"text": request.text}, call_id="call_1")
    yield ToolResult("call_1", str(len(request.text.split())))
    for paragraph in _TEXT.split("\n\n"):
        for word in paragraph.split():
            yield word + " "
            await asyncio.sleep(_PACE_SECONDS)
        yield "\n\n"
