"""For operators: keys with the scope admin. The same as ``outlast runs``, ``workers`` and ``queue``."""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeVar
from uuid import UUID

from fastapi import APIRouter, Depends, Query, Request
from fastapi.exceptions import RequestValidationError
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError
from starlette.responses import Response

from outlast.api.bodies import read_json
from outlast.api.document import ID
from outlast.api.errors import Json
from outlast.api.services import Replica, Services
from outlast.shared.domain.errors import AlreadyFinished, CannotRetry, Invalid, NotFound, RunNotFound
from outlast.shared.domain.ids import parse_response_id, response_id
from outlast.shared.domain.operating import RetryRefusal, RunFilter, RunState, described
from outlast.shared.domain.runs import RunStatus
from outlast.shared.store import operating, overview, steering, workers
from outlast.shared.store.operating import Match

router = APIRouter(prefix="/admin", tags=["operations"])

MOST = 1000  # runs of one call
_OLDEST_SECONDS = 100 * 365 * 86400.0
_MAX_BODY_BYTES = 65_536


def _printable(text: str) -> str:
    if not text.isprintable():
        raise ValueError("printable characters only")
    return text


Text = Annotated[str, Field(min_length=1, max_length=512), AfterValidator(_printable)]
Age = Annotated[float, Field(gt=0, le=_OLDEST_SECONDS, description="Only runs that were submitted so long ago.")]
Limit = Annotated[int, Field(ge=1, le=MOST, description="At most so many.")]


class Bulk(BaseModel):
    """Which runs are meant: those that meet all of it, and at least one thing has to be said."""

    model_config = ConfigDict(extra="forbid", strict=True)

    agent: Text | None = None
    principal: Text | None = None
    older_than_seconds: Age | None = None
    dry_run: bool = Field(default=True, description="Only tell how many, which is what happens unless this is false.")
    limit: Limit = MOST


class BulkCancel(Bulk):
    status: Literal["queued", "in_progress"] | None = None

    @property
    def wanted(self) -> RunFilter:
        return _filter(self.status, self.agent, self.principal, self.older_than_seconds)


class BulkRetry(Bulk):
    status: Literal["failed", "cancelled"] | None = Field(default=None, description="Failed, unless this says so.")
    error_code: Text | None = None

    @property
    def wanted(self) -> RunFilter:
        return _filter(self.status, self.agent, self.principal, self.older_than_seconds, self.error_code)


B = TypeVar("B", bound=Bulk)


def _in_body(model: type[B]) -> Any:
    """Read by a dependency: FastAPI reads a body of its own before it asks for the key, and without a limit."""

    async def read(request: Request) -> B:
        body = await read_json(request, _MAX_BODY_BYTES, named="under /admin")
        if not isinstance(body, dict):
            raise Invalid("The request body must be a JSON object.")
        try:
            return model.model_validate(body)
        except ValidationError as error:
            raise RequestValidationError(
                [{**wrong, "loc": ("body", *wrong["loc"])} for wrong in error.errors()]
            ) from None

    return Depends(read)


def _documented(model: type[Bulk]) -> dict[str, Any]:
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": model.model_json_schema()}}}}


@router.get("/queue", summary="What waits, what runs and who works", response_class=Response)
async def queue(services: Replica) -> Response:
    return Json(await services.overviews.latest())


# -- runs --------------------------------------------------------------------------------------------------------------


@router.get("/runs", summary="The runs of all principals, the newest first", response_class=Response)
async def list_runs(
    services: Replica,
    limit: Annotated[int, Query(ge=1, le=MOST, description="At most so many.")] = 20,
    after: Annotated[
        str | None, Query(description="A run's id: only those that are older.", json_schema_extra=ID)
    ] = None,
    status: Annotated[RunStatus | None, Query(description="Only those in this status.")] = None,
    agent: Annotated[Text | None, Query()] = None,
    principal: Annotated[Text | None, Query()] = None,
    older_than_seconds: Annotated[Age | None, Query()] = None,
    error_code: Annotated[Text | None, Query(description="Only those that failed with it.")] = None,
) -> Response:
    before = None if after is None else parse_response_id(after)
    if after is not None and before is None:
        raise Invalid("Invalid value for 'after': it is not a run's id.", param="after", code="invalid_value")
    wanted = RunFilter(status, agent, principal, older_than_seconds, error_code)
    page = await services.database.run(lambda c: operating.page(c, wanted, limit=limit, after=before))
    data = [described(run) for run in page.runs]
    return Json(
        {
            "object": "list",
            "data": data,
            "first_id": data[0]["id"] if data else None,
            "last_id": data[-1]["id"] if data else None,
            "has_more": page.next_after is not None,
            "next_after": page.next_after and response_id(page.next_after),
            "looked_at_all": page.looked_at_all,
        }
    )


@router.post("/runs/cancel", summary="Cancel many runs", response_class=Response, openapi_extra=_documented(BulkCancel))
async def cancel_runs(asked: Annotated[BulkCancel, _in_body(BulkCancel)], services: Replica) -> Response:
    wanted = _not_empty(asked.wanted)
    found = await services.database.run(lambda c: operating.cancellable(c, wanted, limit=asked.limit + 1))
    chosen = [match.run_id for match in found[: asked.limit]]
    done: list[UUID] = []
    if not asked.dry_run:
        done = await services.database.run(lambda c: steering.request_cancels(c, chosen))
    return Json({**_told(asked, found), "cancelled": len(done)})


@router.post(
    "/runs/retry", summary="Retry many failed runs", response_class=Response, openapi_extra=_documented(BulkRetry)
)
async def retry_runs(asked: Annotated[BulkRetry, _in_body(BulkRetry)], services: Replica) -> Response:
    wanted = _not_empty(asked.wanted)
    found = await services.database.run(lambda c: operating.retriable(c, wanted, limit=asked.limit + 1))
    retried, refused = 0, list[dict[str, str]]()
    for match in [] if asked.dry_run else found[: asked.limit]:
        refusal = await _retry(services, match.run_id)
        retried += refusal is None
        if refusal is not None:
            refused.append({"id": response_id(match.run_id), "code": refusal.code, "message": _sentence(refusal)})
    return Json({**_told(asked, found), "retried": retried, "refused": refused})


@router.get("/runs/{id}", summary="Where a run stands and how it came there", response_class=Response)
async def show_run(id: str, services: Replica) -> Response:
    return Json(described(await _find(services, id)))


@router.post("/runs/{id}/cancel", summary="Cancel a run of any principal", response_class=Response)
async def cancel_run(id: str, services: Replica) -> Response:
    run = await _find(services, id)
    if not await services.database.run(lambda c: steering.request_cancel(c, run.run_id)):
        run = await _find(services, id)
        if run.status.terminal and run.status is not RunStatus.CANCELLED:
            raise AlreadyFinished(f"Cannot cancel a {run.status} run.")
    services.hints.cancelled([run.run_id])
    return Json(described(await _find(services, id)))


@router.post("/runs/{id}/retry", summary="Give an ended run a new attempt", response_class=Response)
async def retry_run(id: str, services: Replica) -> Response:
    run = await _find(services, id)
    if refusal := await _retry(services, run.run_id):
        raise CannotRetry(f"The run cannot be retried: {refusal.value}.", param="id", code=refusal.code)
    return Json(described(await _find(services, id)))


async def _find(services: Services, id: str) -> RunState:
    run_id = parse_response_id(id)
    run = await services.database.run(lambda c: operating.state(c, run_id)) if run_id else None
    if run is None:
        raise RunNotFound(f"There is no run with the id '{id[:100]}'.", param="id")
    return run


async def _retry(services: Services, run_id: UUID) -> RetryRefusal | None:
    """Tried once: when the answer is lost, a second try would find the run active and call that a refusal."""
    services.rest.stir()  # before it waits again: should this replica die now, the others are looking
    outcome = await services.database.run(lambda c: steering.retry(c, run_id), patience_seconds=0)
    if isinstance(outcome, RetryRefusal):
        return outcome
    services.doorbell.ring(outcome, run_id)
    return None


def _filter(
    status: str | None, agent: str | None, principal: str | None, older: float | None, error_code: str | None = None
) -> RunFilter:
    return RunFilter(RunStatus(status) if status else None, agent, principal, older, error_code)


def _not_empty(wanted: RunFilter) -> RunFilter:
    if wanted.is_empty:
        raise Invalid("Say which runs: by 'status', 'agent', 'principal' or 'older_than_seconds'.", param="status")
    return wanted


def _told(asked: Bulk, found: list[Match]) -> dict[str, Any]:
    """What a bulk operation is about: at most as many as it was asked for, and whether there are more."""
    counts: dict[tuple[str, str], int] = {}
    for match in found[: asked.limit]:
        key = (match.agent, match.status.value)
        counts[key] = counts.get(key, 0) + 1
    groups = [{"agent": agent, "status": status, "runs": count} for (agent, status), count in sorted(counts.items())]
    matching = min(len(found), asked.limit)
    return {"dry_run": asked.dry_run, "matching": matching, "groups": groups, "has_more": len(found) > asked.limit}


def _sentence(refusal: RetryRefusal) -> str:
    return f"{refusal.value[0].upper()}{refusal.value[1:]}."


# -- workers -----------------------------------------------------------------------------------------------------------


@router.get("/workers", summary="Who works, and on what", response_class=Response)
async def list_workers(services: Replica) -> Response:
    return Json({"object": "list", "data": await _workers(services)})


@router.post("/workers/{owner}/drain", summary="Have a worker end as by SIGTERM", response_class=Response)
async def drain_worker(owner: str, services: Replica) -> Response:
    asked = await services.database.run(lambda c: workers.request_drain(c, [owner])) if owner.isprintable() else []
    services.rest.stir()  # a worker that rests would find it much later
    if not asked:
        raise NotFound(f"There is no worker '{owner[:200]}'.", param="owner", code="worker_not_found")
    [found] = [worker for worker in await _workers(services) if worker.owner in asked][:1] or [None]
    return Json(found or {"owner": asked[0], "drain_requested": True})


async def _workers(services: Services) -> list[overview.WorkerState]:
    beat = services.settings.beat_seconds
    return await services.database.run(lambda c: overview.workers(c, beat_seconds=beat))


# -- what is wrong -----------------------------------------------------------------------------------------------------


@router.get("/doctor", summary="What is wrong, and what mends it", response_class=Response)
async def doctor(services: Replica) -> Response:
    return Json(await services.examinations.latest())
