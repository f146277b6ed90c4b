"""Agents whose code does not let a run end when it should, and one that suffers from them."""

from __future__ import annotations

import asyncio
import re
import time
from typing import Any

from langgraph.graph import END, START, MessagesState, StateGraph

from outlast.agent import Context, Request

LONG_SECONDS = 600
PACE_SECONDS = 0.1


async def awaits(_request: Request, _context: Context):
    yield "waiting "
    await asyncio.sleep(LONG_SECONDS)


async def swallows(_request: Request, _context: Context):
    yield "deaf "
    while True:
        try:
            await asyncio.sleep(LONG_SECONDS)
        except asyncio.CancelledError:
            continue


async def spins(_request: Request, _context: Context):
    yield "spinning "
    await asyncio.sleep(PACE_SECONDS)
    while True:
        pass


async def sleeps(_request: Request, _context: Context):
    yield "sleeping "
    await asyncio.sleep(PACE_SECONDS)
    time.sleep(LONG_SECONDS)  # noqa: ASYNC251 — that is the point


async def sleeps_in_a_thread(_request: Request, _context: Context):
    yield "threaded "
    await asyncio.to_thread(time.sleep, LONG_SECONDS)


def _match() -> None:
    re.match(r"(a+)+$", "a" * 64 + "b")


async def regex(_request: Request, _context: Context):
    yield "matching "
    await asyncio.sleep(PACE_SECONDS)
    _match()


async def regex_in_a_thread(_request: Request, _context: Context):
    """Holds the GIL, so that the loop stands still although it is not the loop's doing."""
    yield "matching "
    await asyncio.to_thread(_match)


def blocks(_state: MessagesState) -> dict[str, Any]:
    time.sleep(LONG_SECONDS)
    return {"messages": []}


_graph: Any = StateGraph(MessagesState)
_graph.add_node("blocks", blocks).add_edge(START, "blocks").add_edge("blocks", END)
sync_graph = _graph.compile()


async def sibling(request: Request, context: Context):
    """Counts, slowly, and goes on where it was."""
    for number in range(context.saved.get("next", 0), int(request.text)):
        await asyncio.sleep(2 * PACE_SECONDS)
        yield f"{number} "
        await context.save(next=number + 1)


async def tidies(request: Request, _context: Context):
    """Says so when it is cancelled, and takes so many seconds for it."""
    try:
        yield "working "
        await asyncio.sleep(LONG_SECONDS)
    finally:
        await asyncio.sleep(float(request.text))
        yield "tidied "
