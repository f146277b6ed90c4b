"""Agents that real workers load in the tests."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import sys
import time
from pathlib import Path

from outlast.agent import AgentError, Context, Reasoning, Request, ToolCall, ToolResult, Usage

PACE_SECONDS = 0.02
TICK_SECONDS = 0.25


async def count(request: Request, context: Context):
    """Counts to the number it is asked for, slowly enough to be interrupted."""
    yield ToolCall("prepare", {"attempt": context.attempt}, call_id=f"call_{context.attempt}")
    yield ToolResult(f"call_{context.attempt}", "ready")
    for number in range(int(request.text) if request.text.isdecimal() else 3):
        await asyncio.sleep(PACE_SECONDS)
        yield f"{number} "


async def tick(request: Request, _context: Context):
    """Counts to the number it is asked for, four times a second."""
    for number in range(int(request.text)):
        await asyncio.sleep(TICK_SECONDS)
        yield f"{number} "


async def words(_request: Request, context: Context):
    """A short answer that says which attempt it is."""
    for number in range(14):
        await asyncio.sleep(PACE_SECONDS)
        yield f"{context.attempt}:{number} "


async def printing(request: Request, _context: Context):
    """Prints what it is asked in every way there is, and ends its process if it is told to in the last line."""
    print(request.text)
    print(request.text, file=sys.stderr)
    os.write(2, f"{request.text}\n".encode())
    subprocess = await asyncio.create_subprocess_exec("echo", request.text)
    await subprocess.wait()
    if request.text.endswith("die"):
        os._exit(9)
    yield "printed"


async def where(_request: Request, _context: Context):
    yield os.environ["OUTLAST_SCHEMA"]


async def process(_request: Request, _context: Context):
    """What its process is like; it goes on until it is ended."""
    # Its own subprocesses can be ended as usual, although it cannot.
    sleeper = await asyncio.create_subprocess_exec("sleep", "60")
    sleeper.terminate()
    yield json.dumps(
        {
            "pid": os.getpid(),
            "celery": "celery" in sys.modules,
            "script": getattr(sys.modules["__main__"], "__file__", None),
            "subprocess": await sleeper.wait(),
        }
    )
    await asyncio.Event().wait()


async def poison(request: Request, context: Context):
    """Kills its process, unless it is asked to only once and has."""
    yield str(os.getpid())
    if request.text != "once" or context.attempt == 1:
        os.kill(os.getpid(), signal.SIGKILL)


async def stall(request: Request, _context: Context):
    """Never comes back to the loop: in Python, or holding the interpreter's lock."""
    yield str(os.getpid())
    await asyncio.sleep(10 * PACE_SECONDS)  # what it has said is stored
    while request.text != "regex":
        pass
    re.match(r"(a+)+$", "a" * 64 + "b")


HOSTILE = """<img src=x onerror="window.broken=1"><script>window.broken=1</script>"""


async def hostile(request: Request, _context: Context):
    """Says, in every place where an agent can say something, what must not be run."""
    yield Reasoning(HOSTILE)
    yield ToolCall(HOSTILE, {HOSTILE: HOSTILE}, call_id=HOSTILE)
    yield ToolResult(HOSTILE, HOSTILE)
    yield ToolCall("</pre><svg onload=window.broken=1>", HOSTILE, call_id="c2")
    yield ToolResult("c2", error=HOSTILE)
    yield f"{HOSTILE}\n\n[a](javascript:window.broken=1) [b](data:text/html,{HOSTILE}) <{HOSTILE}>\n\n"
    yield f"```{HOSTILE}\n{HOSTILE}\n```\n\n| {HOSTILE} | b |\n|---|---|\n| c | {HOSTILE} |\n\n# {HOSTILE}\n"
    yield Usage(input_tokens=1200, output_tokens=34)
    if "fail" in request.text:
        raise AgentError(HOSTILE, code=HOSTILE)


async def flood(request: Request, _context: Context):
    """As many words as it is asked for, as fast as they are taken."""
    for number in range(int(request.text)):
        yield f"{number} "


async def diary(request: Request, context: Context):
    """Writes to the file it is asked to, again and again, who is at work and when; ends when there is one beside it."""
    file = Path(request.text)
    while not file.with_suffix(".end").exists():
        with file.open("a") as diary:  # noqa: ASYNC230 — a line of text
            diary.write(f"{context.attempt} {time.monotonic()}\n")
        yield "."
        await asyncio.sleep(PACE_SECONDS)
