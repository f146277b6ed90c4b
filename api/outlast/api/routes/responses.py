"""``/responses``: invoke; stream; background and poll; background stream, resumed by stream or by poll."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from starlette.responses import Response

from outlast.api import presence
from outlast.api.authentication import Caller, identify, user_token
from outlast.api.bodies import read_json
from outlast.api.cancellation import cancel
from outlast.api.document import UNCHANGED
from outlast.api.errors import Json
from outlast.api.request_checks import parse
from outlast.api.services import Replica, Services
from outlast.api.sse import EventStream
from outlast.api.submissions import IDEMPOTENCY_KEY, Asked, checked_key, submit
from outlast.api.waiting import MAX_WAIT_SECONDS, FinishedResponse
from outlast.shared import mlflow_traces
from outlast.shared.domain.errors import Invalid, RunNotFound
from outlast.shared.domain.ids import parse_response_id, response_id
from outlast.shared.domain.responses import response_object
from outlast.shared.domain.runs import Run
from outlast.shared.store import runs
from outlast.shared.tracing import trace_id

router = APIRouter(tags=["responses"])

TRACE_ID = "x-trace-id"
MLFLOW_TRACE_ID = "x-mlflow-trace-id"
RETURN_TRACE_ID = "x-mlflow-return-trace-id"

_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {"application/json": {"schema": {"$ref": "#/components/schemas/CreateResponse"}}},
    },
    "parameters": [
        {
            "name": IDEMPOTENCY_KEY,
            "in": "header",
            "required": False,
            "schema": {"type": "string", "minLength": 1, "maxLength": 255},
            "description": "Sent again with the same body it finds the same response; with another body it is refused.",
        }
    ],
}
_STREAM: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "The response object, or its events when `stream` is true.",
        "content": {"application/json": {}, "text/event-stream": {}},
    }
}
_RETRIEVED: dict[int | str, dict[str, Any]] = {
    **_STREAM,
    204: {"description": "The stream has ended before the number in Last-Event-ID."},
    **UNCHANGED,
}
_SUBMITTED: dict[int | str, dict[str, Any]] = {
    **_STREAM,
    422: {"description": "The Idempotency-Key came with another body before."},
    429: {"description": "Too many runs are waiting: ask again after the seconds in Retry-After."},
}


@router.post("/responses", openapi_extra=_BODY, responses=_SUBMITTED, summary="Run an agent")
async def create(request: Request) -> Response:
    return await _create(request, databricks=False)


@router.post("/invocations", openapi_extra=_BODY, responses=_SUBMITTED, summary="Run an agent (Databricks' name)")
async def invoke(request: Request) -> Response:
    return await _create(request, databricks=True)


async def _create(request: Request, *, databricks: bool) -> Response:
    services: Services = request.app.state.services
    caller = await identify(request)
    token = user_token(request)
    body = await read_json(request, services.settings.max_request_bytes)
    recorded = mlflow_traces.wanted(services.settings)
    asked = Asked(
        body,
        parse(body),
        caller.principal,
        datetime.now(UTC),
        databricks,
        request.headers.get("traceparent"),
        user_token=token,
        trace_id=recorded and request.headers.get(RETURN_TRACE_ID, "").lower() == "true",
    )
    submitted = await submit(services, asked, checked_key(request.headers.get(IDEMPOTENCY_KEY)))
    headers = {"idempotent-replayed": "true"} if submitted.replayed else {}
    if submitted.run.traceparent:
        headers[TRACE_ID] = trace_id(submitted.run.traceparent)
    if recorded:
        headers[MLFLOW_TRACE_ID] = mlflow_traces.trace_id(submitted.run.run_id)
    if submitted.replayed and not asked.request.background:
        await presence.came(services, submitted.run)
    if asked.request.stream:
        return EventStream(services, submitted.run, headers=headers)
    if asked.request.background or submitted.run.status.terminal:
        return Json(submitted.response, headers=headers)
    return FinishedResponse(services, submitted.run, headers=headers)


@router.get("/responses/{id}", responses=_RETRIEVED, summary="Read a response, or stream its events")
async def retrieve(
    request: Request,
    id: str,
    services: Replica,
    caller: Caller,
    stream: bool = False,
    starting_after: Annotated[int | None, Query(ge=0, lt=2**31, description="Only events after this number.")] = None,
    ids: Annotated[bool, Query(description="Number the frames, for a browser's EventSource.")] = False,
    wait: Annotated[float, Query(ge=0, le=MAX_WAIT_SECONDS, description="Wait so many seconds for the end.")] = 0,
) -> Response:
    run = await find(services, id, caller.principal)
    if starting_after and not stream:
        raise Invalid("starting_after is only supported when stream=true.", param="starting_after")
    waits = stream or wait > 0
    await (presence.came(services, run) if waits else presence.looked(services, run))
    if stream:
        return _stream(request, services, run, -1 if starting_after is None else starting_after, ids)
    if wait and not run.status.terminal:
        return FinishedResponse(services, run, seconds=wait)
    tag = f'"{run.status}-{run.attempt}"'
    if matches(request.headers.get("if-none-match", ""), tag):
        return Response(status_code=304, headers={"etag": tag})
    return Json(run.response or response_object(run), headers={"etag": tag})


@router.post("/responses/{id}/cancel", summary="Cancel a response")
async def cancel_response(id: str, services: Replica, caller: Caller) -> Response:
    run = await cancel(services, await find(services, id, caller.principal))
    return Json(run.response or response_object(run))


@router.delete("/responses/{id}", summary="Delete a response and its events")
async def delete(id: str, services: Replica, caller: Caller) -> Response:
    run = await find(services, id, caller.principal)
    await services.database.run(lambda c: runs.delete(c, run.run_id, run.principal))
    services.hints.cancelled([run.run_id])
    services.user_tokens.forget(run.run_id)
    return Json({"id": response_id(run.run_id), "object": "response", "deleted": True})


def _stream(request: Request, services: Services, run: Run, starting_after: int, ids: bool) -> Response:
    if ids and (last := request.headers.get("last-event-id", "")).isdecimal() and len(last) < 10:
        starting_after = int(last)  # a browser repeats the URL when it reconnects: its own cursor is the later one
        if run.status.terminal and starting_after >= run.last_seq:
            return Response(status_code=204)  # the only answer that stops EventSource
    return EventStream(services, run, starting_after=starting_after, ids=ids)


def matches(if_none_match: str, tag: str) -> bool:
    """Whether the client has this version already. A proxy that compresses marks tags as weak."""
    given = {part.strip().removeprefix("W/") for part in if_none_match.split(",")}
    return tag in given or "*" in given


async def find(services: Services, id: str, principal: str) -> Run:
    run_id = parse_response_id(id)
    run = await services.database.run(lambda c: runs.read(c, run_id, principal)) if run_id else None
    if run is None:
        raise RunNotFound(f"Response with id '{id[:100]}' not found.", param="id")
    return run
