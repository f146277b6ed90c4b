"""Each way in which a server knows who is calling, for tests that hold for all of them."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Literal

import httpx

from outlast.shared.connections import Database
from outlast.shared.domain.keys import Scope
from outlast.shared.settings import Settings
from tests.support.keys import a_key, bearer
from tests.support.refusals import refused
from tests.support.service import Service, serving

AUTHS = ("api_keys", "databricks")
ADMIN = "admin@example.com"


@dataclass
class Door:
    auth: Literal["api_keys", "databricks"]
    service: Service
    http: httpx.AsyncClient
    database: Database

    async def let_in(self, principal: str, *scopes: Scope) -> dict[str, str]:
        """The headers of requests of this principal."""
        if self.auth == "api_keys":
            return bearer(await a_key(self.database, principal, *scopes))
        return as_user(principal, email=ADMIN if Scope.ADMIN in scopes else f"{principal}@example.com")

    def not_let_in(self, answer: httpx.Response) -> str:
        assert answer.headers["www-authenticate"] == "Bearer"
        return refused(answer, 401, code="invalid_api_key" if self.auth == "api_keys" else "no_identity")


def as_user(user: str, *, email: str | None = None, token: str | None = None) -> dict[str, str]:
    """What the proxy of Databricks Apps makes of a user's request."""
    headers = {"x-forwarded-user": user, "x-forwarded-email": email, "x-forwarded-access-token": token}
    headers |= {"x-forwarded-preferred-username": user, "x-forwarded-host": "app.example.com", "x-real-ip": "10.0.0.1"}
    return {name: value for name, value in headers.items() if value is not None}


@asynccontextmanager
async def a_door(
    auth: Any, settings: Settings, database: Database, agents: Mapping[str, object]
) -> AsyncGenerator[Door]:
    guarded = settings.model_copy(update={"auth": auth, "admins": (ADMIN,)})
    async with (
        serving(guarded, agents) as service,
        httpx.AsyncClient(base_url=service.url, timeout=20) as http,
    ):
        yield Door(auth, service, http, database)
