"""Answers that wait for a run: the response object when it has ended, or as it is when the time is over."""

from __future__ import annotations

import asyncio

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from outlast.shared.domain.errors import OutlastError
from outlast.shared.domain.responses import response_object
from outlast.shared.domain.runs import Run
from outlast.shared.store import runs

from .errors import Json, error_body
from .services import Services
from .tail import StreamCut


class FinishedResponse(Response):
    """Waits, but only as long as the client is there. The run does not depend on it."""

    def __init__(self, services: Services, run: Run, *, seconds: float | None = None) -> None:
        super().__init__()
        self._services = services
        self._run = run
        self._seconds = seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        answer = asyncio.create_task(self._answer())
        disconnect = asyncio.create_task(_disconnected(receive))
        try:
            await asyncio.wait({answer, disconnect}, return_when=asyncio.FIRST_COMPLETED)
            if answer.done():
                await answer.result()(scope, receive, send)
        finally:
            answer.cancel()
            disconnect.cancel()

    async def _answer(self) -> Response:
        try:
            run = await finished(self._services, self._run, self._seconds)
        except StreamCut:
            # Not an error status: the SDK would post the request again, and the run is going on.
            return Json(response_object(self._run)) if not self._services.tail.stopping else _Aborted()
        except OutlastError as error:
            return Json(error_body(error.message, type="server_error", code=error.code), 503, {"retry-after": "1"})
        return Json(run.response or response_object(run))


class _Aborted(Response):
    """Nothing at all: this replica is stopping, and the connection closes."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        return


async def finished(services: Services, run: Run, seconds: float | None = None) -> Run:
    """The run when it has ended, or as it is when the time is over. Raises StreamCut when this replica stops."""
    await services.tail.wait_for_end(run, seconds)
    return await services.database.run(lambda c: runs.read(c, run.run_id, run.principal)) or run


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
