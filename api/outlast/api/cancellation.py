"""Cancel: stored first, so that it holds whatever happens to this replica, the broker or the worker."""

from __future__ import annotations

from outlast.shared.domain.errors import AlreadyFinished, RunNotFound
from outlast.shared.domain.events import INCOMPLETE, Chunk, Event
from outlast.shared.domain.responses import Outcome, response_object
from outlast.shared.domain.runs import Lease, Run, RunStatus
from outlast.shared.store import runs
from outlast.shared.wire import event_line, to_json

from .services import Services
from .waiting import finished

_PATIENCE_BEATS = 3  # the worker that holds the run hears of it within one


async def cancel(services: Services, run: Run) -> Run:
    """The run, cancelled; or with its cancel on the way. Raises AlreadyFinished when it has ended otherwise."""
    while not run.status.terminal:
        if run.attempt == 0:
            ending = cancelled_in_queue(run)
            lease = Lease(run.run_id, run.attempt)
            await services.database.run(lambda c: runs.finish_queued(c, services.database.schema, lease, ending))
        elif await services.database.run(lambda c: runs.request_cancel(c, run.run_id, run.principal)):
            return await finished(services, run, _PATIENCE_BEATS * services.settings.beat_seconds)
        found = await services.database.run(lambda c: runs.read(c, run.run_id, run.principal))
        if found is None:
            raise RunNotFound
        run = found
    if run.status is not RunStatus.CANCELLED:
        raise AlreadyFinished(f"Cannot cancel a {run.status} response.")
    return run


def cancelled_in_queue(run: Run) -> runs.Ending:
    """A run that no worker has touched ends with one event: nothing is open in it."""
    response = response_object(run, Outcome(RunStatus.CANCELLED))
    sequence_number = run.last_seq + 1
    line = event_line(Event(INCOMPLETE, sequence_number, {"response": response}))
    return runs.Ending(RunStatus.CANCELLED, to_json(response), Chunk(sequence_number, sequence_number, line))
