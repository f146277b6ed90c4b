"""Whether anybody waits for a run in the foreground: when the last client has been gone for a while, it is cancelled.

Only a client that goes away by itself counts. One that this replica cuts off comes back, perhaps later than that.
"""

from __future__ import annotations

import structlog

from outlast.shared.domain.errors import OutlastError
from outlast.shared.domain.ids import response_id
from outlast.shared.domain.runs import Run
from outlast.shared.store import presence

from .services import Services

log = structlog.get_logger()


async def came(services: Services, run: Run) -> None:
    """A client waits for this run, beside the one that submitted it. Raises Unavailable."""
    if _counts(run):
        await services.database.run(lambda c: presence.came(c, run.run_id))


async def looked(services: Services, run: Run) -> None:
    """A client has asked how it stands, and will again. Raises Unavailable."""
    if run.abandoned and _counts(run):
        await services.database.run(lambda c: presence.looked(c, run.run_id))


async def left(services: Services, run: Run) -> None:
    """A client has gone away before the end. Without the database the run goes on, which loses nothing.

    Tried once: when the answer is lost, a second try would count another client, who still waits, as gone.
    """
    if not _counts(run) or services.tail.stopping:
        return
    try:
        await services.database.run(lambda c: presence.left(c, run.run_id), patience_seconds=0)
    except OutlastError as error:
        log.warning("disconnect.not_stored", run=response_id(run.run_id), error=error.message)


def _counts(run: Run) -> bool:
    return not (run.background or run.status.terminal)
