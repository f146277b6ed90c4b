"""Whether this replica lives, and whether it can serve."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter

from outlast.api.services import Replica
from outlast.shared.store import schema

router = APIRouter(tags=["operations"])

OPEN: dict[str, Any] = {"security": []}
"""These routes need no key: they show nothing of any run."""


@router.head("/health", include_in_schema=False)
@router.get("/health", summary="The process answers", openapi_extra=OPEN)
async def health() -> dict[str, str]:
    return {"status": "healthy"}


@router.head("/ready", include_in_schema=False)
@router.get(
    "/ready", summary="The process can reach its database and the schema is the one it needs", openapi_extra=OPEN
)
async def ready(services: Replica) -> dict[str, str]:
    if not services.rest.resting:  # who asks each few seconds would keep the database awake
        await services.database.run(schema.check, patience_seconds=1)
    return {"status": "ready"}
