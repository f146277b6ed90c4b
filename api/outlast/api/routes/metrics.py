"""The numbers, for Prometheus."""

from __future__ import annotations

from fastapi import APIRouter
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from starlette.responses import Response

from outlast.api.metrics.system import SystemState
from outlast.api.services import Replica, Services
from outlast.shared.domain.errors import OutlastError
from outlast.shared.store.overview import Overview

from .health import OPEN

router = APIRouter(tags=["operations"])


@router.get("/metrics", summary="Prometheus metrics", response_class=Response, openapi_extra=OPEN)
async def metrics(services: Replica) -> Response:
    registry = CollectorRegistry()
    registry.register(SystemState(await _overview(services)))
    text = generate_latest(services.metrics.registry) + generate_latest(registry)
    return Response(text, media_type=CONTENT_TYPE_LATEST)


async def _overview(services: Services) -> Overview | None:
    """None when the database is away: that is when this replica's own numbers are wanted most."""
    try:
        return await services.overviews.latest()
    except OutlastError:
        return None
