"""Cancel: stored first, so that it holds whatever happens to this replica, the broker or the worker."""

from __future__ import annotations

from outlast.shared import endings
from outlast.shared.domain.errors import AlreadyFinished, RunNotFound
from outlast.shared.domain.overdue import EndReason, Overdue
from outlast.shared.domain.runs import Run, RunStatus
from outlast.shared.store import overdue, runs

from .services import Services
from .waiting import finished

_PATIENCE_BEATS = 3  # the worker that holds the run hears of it within one


async def cancel(services: Services, run: Run) -> Run:
    """The run, cancelled; or with its cancel on the way. Raises AlreadyFinished when it has ended otherwise."""
    while not run.status.terminal:
        asked = await services.database.run(lambda c: overdue.request_cancel(c, run.run_id, run.principal))
        if asked is not None and asked.status is RunStatus.IN_PROGRESS:
            services.hints.cancelled([run.run_id])
            return await finished(services, run, _PATIENCE_BEATS * services.settings.beat_seconds)
        if asked is not None:  # nobody executes it: it ends here
            found = Overdue(run.run_id, run.principal, asked.attempt, EndReason.CANCELLED)
            await endings.end(services.database, found, lease_seconds=services.settings.lease_seconds)
            services.user_tokens.forget(run.run_id)
        found = await services.database.run(lambda c: runs.read(c, run.run_id, run.principal))
        if found is None:
            raise RunNotFound
        run = found
    if run.status is not RunStatus.CANCELLED:
        raise AlreadyFinished(f"Cannot cancel a {run.status} response.")
    return run
