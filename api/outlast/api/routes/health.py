"""Whether this replica lives, and whether it can serve."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Gauge, generate_latest
from starlette.responses import Response

from outlast.api.services import Replica
from outlast.shared.store import schema

router = APIRouter(tags=["operations"])

OPEN: dict[str, Any] = {"security": []}
"""These routes need no key: they show nothing of any run."""


@router.get("/health", summary="The process answers", openapi_extra=OPEN)
async def health() -> dict[str, str]:
    return {"status": "healthy"}


@router.get(
    "/ready", summary="The process can reach its database and the schema is the one it needs", openapi_extra=OPEN
)
async def ready(services: Replica) -> dict[str, str]:
    await services.database.run(schema.check, patience_seconds=1)
    return {"status": "ready"}


@router.get("/metrics", summary="Prometheus metrics", response_class=Response, openapi_extra=OPEN)
async def metrics(services: Replica) -> Response:
    registry = CollectorRegistry()
    Gauge("outlast_streams", "Streams open in this replica", registry=registry).set(services.tail.streams)
    Gauge("outlast_listening", "1 while LISTEN works; events are polled for otherwise", registry=registry).set(
        services.tail.listening
    )
    Gauge("outlast_doorbells_lost", "Bells that could not be rung since start", registry=registry).set(
        services.doorbell.lost
    )
    return Response(generate_latest(registry), media_type=CONTENT_TYPE_LATEST)
