"""A Databricks workspace with Lakebase, before a Postgres that asks for no password.

    async with Workspace(postgres_url, credential_seconds=8) as workspace:
        api.start(env=workspace.env())              # it reaches the database through the real databricks-sdk
        workspace.misbehave(broken(), seconds=5)    # the REST API; see workspace_faults
        workspace.front.drop()                      # the connections
        assert workspace.mints and not workspace.front.refused

It has threads of its own: `with` does as well as `async with`, and processes reach it like a real one.
"""

from __future__ import annotations

import math
import os
import uuid
from typing import Literal, Self
from urllib.parse import urlsplit

from .directory import Credential, Directory, Endpoint, Instance, Principal
from .postgres_front import Front
from .postgres_wire import Refusal
from .workspace_api import Call, RestApi
from .workspace_faults import Fault
from .workspace_roles import Rights, drop_role, make_role

Way = Literal["endpoint", "project", "instance"]
HOST = "127.0.0.1"
PROJECT, BRANCH = "projects/agents", "projects/agents/branches/production"


class Workspace:
    """One instance and one endpoint, both the given database at 127.0.0.1, and one service principal.

    ``credential_seconds`` is the life of a credential; ``rights`` are those of the principal's Postgres role.
    More of each can be added to ``directory`` and with `add_principal`; ``hosts`` (127.0.0.2, …) are more addresses at
    which the same database listens, for instances and endpoints that must be told apart.
    """

    def __init__(
        self,
        postgres_url: str,
        *,
        credential_seconds: float = 3600,
        access_seconds: float = 3600,
        rights: Rights = Rights.OWNER,
        hosts: tuple[str, ...] = (),
    ) -> None:
        self._url = postgres_url
        self._rights = rights
        self._hosts = [HOST, *hosts]
        self.directory = Directory(credential_seconds=credential_seconds, access_seconds=access_seconds)
        self.instance = Instance("lakebase", HOST)
        self.endpoint = Endpoint(f"{BRANCH}/endpoints/primary", HOST)
        self.directory.instances.append(self.instance)
        self.directory.endpoints.append(self.endpoint)

    async def __aenter__(self) -> Self:
        return self.__enter__()

    async def __aexit__(self, *error: object) -> None:
        self.__exit__(*error)

    def __enter__(self) -> Self:
        self.principal = self.add_principal(rights=self._rights)
        self.api = RestApi(self.directory)
        self.front = Front(self._url, self._hosts, self._judge)
        self.front.on_waking = self._woken
        return self

    def __exit__(self, *error: object) -> None:
        self.api.close()
        self.front.close()
        for principal in self.directory.principals:
            drop_role(self._url, principal.name)

    def add_principal(self, name: str | None = None, *, rights: Rights = Rights.CONNECT) -> Principal:
        """A service principal of this client id, a random one by default; an email makes a user with a token."""
        name = name or str(uuid.uuid4())
        secret = f"{'dapi' if '@' in name else 'dose'}{uuid.uuid4().hex}"
        make_role(self._url, name, rights)
        self.directory.principals.append(principal := Principal(name, secret))
        return principal

    def env(self, way: Way = "instance", *, principal: Principal | None = None) -> dict[str, str]:
        """What a process needs in its environment to use the database; nothing of the machine's own logins."""
        who = principal or self.principal
        project, branch = PROJECT.partition("/")[2], BRANCH.rpartition("/")[2]
        named = {
            "endpoint": {"LAKEBASE_AUTOSCALING_ENDPOINT": self.endpoint.name},
            "project": {"LAKEBASE_AUTOSCALING_PROJECT": project, "LAKEBASE_AUTOSCALING_BRANCH": branch},
            "instance": {"LAKEBASE_INSTANCE_NAME": self.instance.name},
        }[way]
        return {**self.login_env(who), **named, "LAKEBASE_DATABASE": self.database, "LAKEBASE_PORT": str(self.port)}

    def login_env(self, who: Principal) -> dict[str, str]:
        """The part of it that databricks-sdk reads."""
        client = {"DATABRICKS_CLIENT_ID": who.name, "DATABRICKS_CLIENT_SECRET": who.secret}
        login = {"DATABRICKS_TOKEN": who.secret} if who.is_user else client
        return {"DATABRICKS_HOST": self.url, "DATABRICKS_CONFIG_FILE": os.devnull, **login}

    @property
    def url(self) -> str:
        return self.api.url

    @property
    def port(self) -> int:
        """The front's, at each of its addresses."""
        return self.front.port

    @property
    def database(self) -> str:
        return urlsplit(self._url).path.lstrip("/")

    @property
    def mints(self) -> list[Credential]:
        return self.directory.mints

    @property
    def calls(self) -> list[Call]:
        return self.api.calls

    def count(self, paths: str) -> int:
        """How many calls there were of paths that contain this."""
        return sum(paths in call.path for call in self.calls)

    def misbehave(
        self, fault: Fault, *, calls: float = math.inf, seconds: float = math.inf, paths: str = "/api/"
    ) -> None:
        """Answer so from now on, so many calls or seconds long, on paths that contain the text ("" for all)."""
        self.api.misbehaviour.add(fault, calls=calls, seconds=seconds, paths=paths)

    def behave(self) -> None:
        self.api.misbehaviour.end()

    def suspend(self, *, wake_seconds: float = 1.0, refusing: bool = False) -> None:
        """Scale the endpoint to zero: connections break, and the next one wakes it."""
        self.endpoint.state = "IDLE"
        self.front.suspend(wake_seconds=wake_seconds, refusing=refusing)

    def stop(self) -> None:
        """Stop the instance and disable the endpoint: no connection wakes them."""
        self.instance.state, self.endpoint.disabled = "STOPPED", True
        self.front.drop()

    def start(self) -> None:
        self.instance.state, self.endpoint.disabled = "AVAILABLE", False

    def _woken(self) -> None:
        self.endpoint.state = "ACTIVE"

    def _judge(self, host: str, role: str, password: str) -> Refusal | None:
        place = self.directory.place_at(host)
        if place is None or not place.reachable:
            return Refusal("57P03", "the database is stopped and does not accept connections", "stopped")
        reason = self.directory.refusal(host, role, password)
        if reason is None:
            return None
        return Refusal("28P01", f'password authentication failed for user "{role}"', reason)
