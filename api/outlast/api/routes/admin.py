"""For operators: keys with the scope admin."""

from __future__ import annotations

from fastapi import APIRouter
from starlette.responses import Response

from outlast.api.errors import Json
from outlast.api.services import Replica

router = APIRouter(prefix="/admin", tags=["operations"])


@router.get("/queue", summary="What waits, what runs and who works", response_class=Response)
async def queue(services: Replica) -> Response:
    return Json(await services.overviews.latest())
