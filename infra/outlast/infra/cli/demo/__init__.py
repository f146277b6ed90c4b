"""``outlast demo``: an answer outlives its worker and its connection, before the reader's eyes."""

from __future__ import annotations

import asyncio
import os
import signal
import sys

from outlast.infra.embedded import EmbeddedError
from outlast.shared.domain.errors import OutlastError

from .play import Play
from .screen import Screen
from .stage import Stage

__all__ = ["run"]


def run() -> int:
    """Returns the exit code: 0 when all that is promised held, 1 when not, 130 when it was stopped.

    Raises OutlastError when the demo cannot be given."""
    try:
        return asyncio.run(_give(Screen.of_terminal()))
    except EmbeddedError as error:
        raise OutlastError(str(error)) from None
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # nobody looks any more
        return 1


async def _give(screen: Screen) -> int:
    stopping = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        asyncio.get_running_loop().add_signal_handler(number, stopping.set)
    stage = Stage()
    play = Play(stage, screen)
    playing = asyncio.create_task(play.perform())
    stopped = asyncio.create_task(stopping.wait())
    try:
        await asyncio.wait({playing, stopped}, return_when=asyncio.FIRST_COMPLETED)
        held = playing.result() if playing.done() else None
    finally:
        playing.cancel()
        await asyncio.wait({playing})
        stopped.cancel()
        await stage.close()
        screen.settle()
    if held is None:
        screen.tell("stop", "stopped; nothing of it is left")
        return 130
    verdict = f"All of it holds: {play.seconds:.1f} s." if held else "Not all of it holds."
    screen.tell("done", f"{verdict} Every process is stopped and {stage.folder} is removed", "bold")
    return 0 if held else 1
