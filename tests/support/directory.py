"""What a Databricks workspace knows: who there is, which databases, and which tokens and credentials it gave out."""

from __future__ import annotations

import base64
import json
import threading
import time
import uuid
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Principal:
    """A service principal, or a user with a personal access token."""

    name: str
    """A client id, or an email. It is the name of the Postgres role too."""
    secret: str = field(repr=False)
    """The client's secret, or the personal access token."""
    revoked: bool = False
    """No login any more, neither to the workspace nor with credentials minted before."""
    permitted: bool = True
    """Whether it may see the databases: else 403 for each, and for their credentials."""

    @property
    def is_user(self) -> bool:
        return "@" in self.name


@dataclass
class Instance:
    """A provisioned database instance."""

    name: str
    host: str
    state: str = "AVAILABLE"
    uid: str = field(default_factory=lambda: str(uuid.uuid4()))

    @property
    def reachable(self) -> bool:
        return self.state == "AVAILABLE"


@dataclass
class Endpoint:
    """An endpoint of a branch of an autoscaling project."""

    name: str
    """projects/P/branches/B/endpoints/E"""
    host: str
    kind: str = "ENDPOINT_TYPE_READ_WRITE"
    state: str = "ACTIVE"
    """ACTIVE, IDLE (a connection wakes it), INIT or DEGRADED."""
    disabled: bool = False
    """No connection wakes it."""
    uid: str = field(default_factory=lambda: f"ep-{uuid.uuid4().hex[:12]}")

    @property
    def branch(self) -> str:
        return self.name.partition("/endpoints/")[0]

    @property
    def project(self) -> str:
        return self.name.partition("/branches/")[0]

    @property
    def reachable(self) -> bool:
        return not self.disabled


@dataclass(frozen=True)
class Credential:
    """A password for one Postgres role, at the hosts it was minted for."""

    token: str = field(repr=False)
    principal: Principal
    places: tuple[str, ...]
    """Names of the instances, or of the endpoint."""
    minted_at: float
    expires_at: float
    """Seconds since the epoch, by the workspace's clock."""


class Directory:
    """Its methods are called by the threads of the REST API, of the front and of the test."""

    def __init__(self, *, credential_seconds: float, access_seconds: float) -> None:
        self.credential_seconds = credential_seconds
        self.access_seconds = access_seconds
        self.clock_ahead_seconds = 0.0
        """Of the workspace, to this machine's."""
        self.principals: list[Principal] = []
        self.instances: list[Instance] = []
        self.endpoints: list[Endpoint] = []
        self.mints: list[Credential] = []
        self._access: dict[str, tuple[Principal, float]] = {}
        self._lock = threading.Lock()

    def now(self) -> float:
        """Seconds since the epoch, by the workspace's clock."""
        return time.time() + self.clock_ahead_seconds

    def client(self, client_id: str, secret: str) -> Principal | None:
        found = (p for p in self.principals if p.name == client_id and p.secret == secret and not p.is_user)
        return next((p for p in found if not p.revoked), None)

    def grant_access(self, principal: Principal) -> str:
        """A token for the REST API."""
        token = _token(principal.name, self.now() + self.access_seconds, scope="all-apis")
        with self._lock:
            self._access[token] = (principal, self.now() + self.access_seconds)
        return token

    def caller(self, bearer: str) -> Principal | None:
        """Who has this access token, personal or granted, that is not revoked or expired."""
        personal = next((p for p in self.principals if p.is_user and p.secret == bearer), None)
        principal, until = (personal, float("inf")) if personal else self._access.get(bearer, (None, 0.0))
        return principal if principal and not principal.revoked and self.now() < until else None

    def mint(self, principal: Principal, places: tuple[str, ...]) -> Credential:
        now = self.now()
        token = _token(principal.name, now + self.credential_seconds, scope="all-apis database")
        credential = Credential(token, principal, places, now, now + self.credential_seconds)
        with self._lock:
            self.mints.append(credential)
        return credential

    def place_at(self, host: str) -> Instance | Endpoint | None:
        """The first that is served at this address: an instance, else an endpoint."""
        return next((place for place in (*self.instances, *self.endpoints) if place.host == host), None)

    def refusal(self, host: str, role: str, password: str) -> str | None:
        """Why Postgres at this address lets this login not in; None when it does."""
        credential = next((mint for mint in list(self.mints) if mint.token == password), None)
        if credential is None:
            return "not a credential of this workspace"
        hosts = {place.host for place in (*self.instances, *self.endpoints) if place.name in credential.places}
        if host not in hosts:
            return "minted for another database"
        if credential.principal.name != role:
            return "another principal's"
        if credential.principal.revoked:
            return "revoked"
        return "expired" if self.now() >= credential.expires_at else None


def _token(subject: str, expires_at: float, **claims: Any) -> str:
    """It has the form and about the length of the real ones."""
    header = {"kid": uuid.uuid4().hex * 2, "typ": "at+jwt", "alg": "RS256"}
    body = {"sub": subject, "exp": int(expires_at), "jti": str(uuid.uuid4()), "iss": "https://workspace/oidc", **claims}
    parts = [json.dumps(header).encode(), json.dumps(body).encode(), uuid.uuid4().bytes * 16]
    return ".".join(base64.urlsafe_b64encode(part).decode().rstrip("=") for part in parts)
