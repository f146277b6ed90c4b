"""The caller's runs, and what each was asked, as OpenAI's lists: in pages, by a cursor."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from hashlib import sha256
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Header, Query
from starlette.responses import Response

from outlast.api.authentication import Caller
from outlast.api.document import ID, UNCHANGED
from outlast.api.errors import Json
from outlast.api.services import Replica
from outlast.shared.domain.errors import Invalid
from outlast.shared.domain.ids import parse_response_id, response_id
from outlast.shared.domain.runs import ListedRun, RunStatus
from outlast.shared.store import listing
from outlast.shared.wire import to_json

from .responses import find, matches

router = APIRouter(tags=["responses"])

Limit = Annotated[int, Query(ge=1, le=100, description="At most so many.")]
Tag = Annotated[str, Header(include_in_schema=False)]


@router.get("/responses", summary="List your responses, the newest first", response_class=Response, responses=UNCHANGED)
async def list_responses(
    services: Replica,
    caller: Caller,
    limit: Limit = 20,
    after: Annotated[
        str | None, Query(description="A response id: only those that are older.", json_schema_extra=ID)
    ] = None,
    status: Annotated[RunStatus | None, Query(description="Only those in this status.")] = None,
    if_none_match: Tag = "",
) -> Response:
    run_id = None if after is None else parse_response_id(after)
    if after is not None and run_id is None:
        raise Invalid("Invalid value for 'after': it is not a response id.", param="after", code="invalid_value")
    found = await services.database.run(
        lambda c: listing.newest(c, caller.principal, limit=limit + 1, after=run_id, status=status)
    )
    body = to_json(_page([_entry(run) for run in found], limit))
    tag = f'"{sha256(body.encode()).hexdigest()[:32]}"'
    if matches(if_none_match, tag):
        return Response(status_code=304, headers={"etag": tag})
    return Json(body, headers={"etag": tag})


@router.get("/responses/{id}/input_items", summary="List what a response was asked", response_class=Response)
async def input_items(
    id: str,
    services: Replica,
    caller: Caller,
    limit: Limit = 20,
    after: Annotated[str | None, Query(description="An item's id: only those after it.")] = None,
    order: Annotated[Literal["asc", "desc"], Query(description="By their place in the request.")] = "desc",
) -> Response:
    run = await find(services, id, caller.principal)
    given: str | list[dict[str, Any]] = run.request["input"]
    items = [{"role": "user", "content": given}] if isinstance(given, str) else given
    shown = [_item(item, f"in_{run.run_id.hex}_{place}") for place, item in enumerate(items)]
    if order == "desc":
        shown.reverse()
    if after is not None:
        places = [place for place, item in enumerate(shown) if item["id"] == after]
        if not places:
            raise Invalid("Invalid value for 'after': there is no such item.", param="after", code="invalid_value")
        shown = shown[places[0] + 1 :]
    return Json(_page(shown[: limit + 1], limit))


def _page(entries: Sequence[Mapping[str, Any]], limit: int) -> dict[str, Any]:
    """OpenAI's list; one entry more than the limit says that there are more."""
    data = entries[:limit]
    return {
        "object": "list",
        "data": data,
        "first_id": data[0]["id"] if data else None,
        "last_id": data[-1]["id"] if data else None,
        "has_more": len(entries) > limit,
    }


def _entry(run: ListedRun) -> dict[str, Any]:
    ended = run.finished_at if run.status is RunStatus.COMPLETED else None
    return {
        "id": response_id(run.run_id),
        "object": "response",
        "status": run.status.value,
        "model": run.agent,
        "title": run.title,
        "created_at": int(run.created_at.timestamp()),
        "started_at": int(run.started_at.timestamp()) if run.started_at else None,
        "completed_at": int(ended.timestamp()) if ended else None,
        "attempt_number": run.attempt,
        "conversation": {"id": run.thread},
        "background": run.background,
    }


def _item(item: Mapping[str, Any], item_id: str) -> dict[str, Any]:
    """An item as it was given, with an id; a message's text is made a part of its content."""
    shown = {"id": item_id, "type": "message", **{name: value for name, value in item.items() if value is not None}}
    if shown["type"] == "message" and isinstance(shown.get("content"), str):
        kind = "output_text" if shown.get("role") == "assistant" else "input_text"
        shown["content"] = [{"type": kind, "text": shown["content"]}]
    return shown
