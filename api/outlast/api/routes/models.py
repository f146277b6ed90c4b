"""The agents, as models and as Databricks' clients ask for them."""

from __future__ import annotations

from importlib.metadata import version
from typing import Any

from fastapi import APIRouter

from outlast.api.services import Replica

router = APIRouter(tags=["agents"])


@router.get("/models", summary="List the agents")
async def models(services: Replica) -> dict[str, Any]:
    return {"object": "list", "data": [_model(name) for name in services.settings.agents]}


@router.get("/agent/info", summary="What is served here")
async def info(services: Replica) -> dict[str, Any]:
    return {
        "name": services.settings.default_agent,
        "use_case": "agent",
        "agent_api": "responses",
        "agents": list(services.settings.agents),
        "server": "outlast",
        "version": version("outlast"),
    }


def _model(name: str) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": 0, "owned_by": "outlast"}
