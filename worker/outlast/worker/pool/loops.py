"""The event loop of a child, which no code of an agent ends: other runs are on it."""

from __future__ import annotations

import structlog
import uvloop

from outlast.agent import AgentError
from outlast.worker import executing

log = structlog.get_logger()


class Loop(uvloop.Loop):
    """Goes on when a callback of an agent's code would end it. `Marks` sees to tasks."""

    def run_forever(self) -> None:
        while True:
            try:
                super().run_forever()
                return
            except (SystemExit, KeyboardInterrupt) as error:
                log.error("callback.exited", exc_info=error)

    def stop(self) -> None:
        if executing.for_attempt():
            raise AgentError("The agent's code may not stop the event loop: other runs are on it.")
        super().stop()
