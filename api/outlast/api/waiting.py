"""Answers that wait for a run: the response object when it has ended, or as it is when the time is over."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from outlast.shared.domain.errors import OutlastError, RunNotFound
from outlast.shared.domain.ids import response_id
from outlast.shared.domain.responses import response_object
from outlast.shared.domain.runs import Run
from outlast.shared.store import runs

from . import errors, presence
from .errors import Json
from .services import Services
from .tail import StreamCut

MAX_WAIT_SECONDS = 300


class FinishedResponse(Response):
    """Waits, but only as long as the client is there. The run does not depend on it."""

    def __init__(
        self,
        services: Services,
        run: Run,
        *,
        seconds: float | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__()
        self._extra = headers or {}
        self._services = services
        self._run = run
        self._seconds = seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        answer = asyncio.create_task(self._answer())
        disconnect = asyncio.create_task(_disconnected(receive))
        try:
            await asyncio.wait({answer, disconnect}, return_when=asyncio.FIRST_COMPLETED)
            if not answer.done() or self._seconds is not None:  # who waits in turns is gone until the next one
                await presence.left(self._services, self._run)
            if answer.done():
                response = answer.result()
                response.headers.update(self._extra)
                await response(scope, receive, send)
        finally:
            answer.cancel()
            disconnect.cancel()

    async def _answer(self) -> Response:
        tail = self._services.tail
        try:
            await _ended(self._services, self._run, self._seconds)
            if tail.stopping and self._seconds is None:
                return self._elsewhere()
            run = await _as_it_is(self._services, self._run)
        except OutlastError as error:
            answer = errors.answer(error)
            if self._seconds is None:  # it has been accepted: posted again it would run again
                answer.headers["x-should-retry"] = "false"
            return answer
        return Json(run.response or response_object(run))

    def _elsewhere(self) -> Response:
        """Not an abort: the SDK would post, and run, again. It follows this to another replica.

        By whichever path it came: the address is relative to the one that was asked.
        """
        location = f"responses/{response_id(self._run.run_id)}?wait={MAX_WAIT_SECONDS}"
        return Response(status_code=303, headers={"location": location})


async def finished(services: Services, run: Run, seconds: float | None = None) -> Run:
    """The run when it has ended, or as it is when the time is over or this replica stops. Raises RunNotFound."""
    await _ended(services, run, seconds)
    return await _as_it_is(services, run)


async def _ended(services: Services, run: Run, seconds: float | None) -> None:
    with contextlib.suppress(StreamCut):
        await services.tail.wait_for_end(run, seconds)


async def _as_it_is(services: Services, run: Run) -> Run:
    found = await services.database.run(lambda c: runs.read(c, run.run_id, run.principal))
    if found is None:
        raise RunNotFound(f"Response with id '{response_id(run.run_id)}' has been deleted.", param="id")
    return found


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
