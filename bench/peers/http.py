"""What every peer's app answers: POST /runs, GET /runs/{id}/events, GET /done."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Any

import uvicorn
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response, StreamingResponse

EVENTS = 20
WORD = "a word of an answer " * 8  # about as many bytes as one of our events


def serve(
    accept: Callable[[Mapping[str, Any]], Awaitable[str]],
    follow: Callable[[str], AsyncIterator[str]],
    done: Callable[[], Awaitable[int]],
    **options: Any,
) -> None:
    """Serve at the port that the command line names. ``options`` are FastAPI's."""
    app = FastAPI(**options)

    @app.post("/runs")
    async def post(request: Request) -> Response:
        return JSONResponse({"id": await accept(await request.json())})

    @app.get("/runs/{run}/events")
    async def events(run: str) -> Response:
        return StreamingResponse(_frames(follow(run)), media_type="text/event-stream")

    @app.get("/done")
    async def count() -> Response:
        return JSONResponse({"done": await done()})

    uvicorn.run(app, host="127.0.0.1", port=int(sys.argv[2]), log_level="warning", access_log=False)


async def _frames(events: AsyncIterator[str]) -> AsyncIterator[bytes]:
    async for event in events:
        yield f"data: {event}\n\n".encode()
    yield b"data: [DONE]\n\n"
