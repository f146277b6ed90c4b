"""The event loops of a child, which no code of an agent ends: other runs are on them."""

from __future__ import annotations

import asyncio
import traceback
from collections.abc import Callable

import structlog
import uvloop

from outlast.agent import AgentError
from outlast.shared.settings import Settings

from .executing import for_attempt

log = structlog.get_logger()


class UvLoop(uvloop.Loop):
    """The faster one."""

    def run_forever(self) -> None:
        _turn(super().run_forever)

    def stop(self) -> None:
        _refuse_agents()
        super().stop()


class AsyncioLoop(asyncio.SelectorEventLoop):
    """For code that looks into its loop, or patches it: ``nest_asyncio``."""

    def run_forever(self) -> None:
        _turn(super().run_forever)

    def stop(self) -> None:
        _refuse_agents()
        super().stop()


def _turn(run_forever: Callable[[], None]) -> None:
    """Go on when a callback of an agent's code would end it. `Marks` sees to tasks."""
    while True:
        try:
            return run_forever()
        except (SystemExit, KeyboardInterrupt) as error:
            log.error("callback.exited", exc_info=error)


def _refuse_agents() -> None:
    if for_attempt():
        raise AgentError("The agent's code may not stop the event loop: other runs are on it.")


def chosen(settings: Settings) -> Callable[[], asyncio.AbstractEventLoop]:
    return AsyncioLoop if settings.event_loop == "asyncio" else UvLoop


def advice(error: BaseException) -> str:
    """What helps code that cannot do with the faster loop, to append to a sentence; nothing for other errors."""
    if UvLoop.__name__ not in "".join(traceback.format_exception_only(error)):  # never fails, as str() of theirs may
        return ""
    return "; it needs asyncio's own event loop, which OUTLAST_EVENT_LOOP=asyncio gives to the workers' agents"
