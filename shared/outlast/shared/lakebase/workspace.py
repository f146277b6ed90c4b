"""The Databricks workspace: the one module that knows databricks-sdk. Its calls block; they are made in a thread."""

from __future__ import annotations

import re
import time
from collections.abc import Generator
from contextlib import contextmanager
from datetime import UTC, datetime
from uuid import uuid4

from databricks.sdk import WorkspaceClient
from databricks.sdk.config import Config
from databricks.sdk.errors import NotFound, PermissionDenied, Unauthenticated
from databricks.sdk.errors.base import DatabricksError
from databricks.sdk.service.database import DatabaseInstance
from databricks.sdk.service.postgres import Endpoint as EndpointFacts, EndpointType
from requests import RequestException

from .faults import LoginFault
from .login import Login
from .target import Branch, Endpoint, Instance, Target

_TRY_SECONDS = 10.0  # for one answer
_SDK_RETRIES_SECONDS = 1  # its own retries sleep for as long as they like; ours are bounded
_LIFE_SECONDS = 3600.0  # of a database credential, at most
_UNKNOWN_LIFE_SECONDS = 300.0
_SAID_CHARACTERS = 200
_UID_IN_HOST = re.compile(r"instance-([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})\.")
_LOG_IN = (
    "On Databricks Apps the login is there by itself; elsewhere `databricks auth login --host https://…`, or set "
    "DATABRICKS_HOST with DATABRICKS_CLIENT_ID and DATABRICKS_CLIENT_SECRET"
)


class Workspace:
    def __init__(self, target: Target, user: str | None) -> None:
        self._target = target
        self._user = user
        self._client: WorkspaceClient | None = None

    def mint(self) -> Login:
        """A new login. Raises LoginFault, which says what is wrong and what mends it."""
        with self._explained():
            client = self._connected()
            host, token, expires_at = self._token(client)
            left = (expires_at - datetime.now(UTC)).total_seconds() if expires_at else _LIFE_SECONDS
            if self._user is None:
                self._user = client.current_user.me().user_name
        if not host or not token or not self._user:
            raise LoginFault(
                f"The workspace's answer about {self._target} lacks the host, token or user", lasting=False
            )
        return Login(
            host=host,
            user=self._user,
            token=token,
            minted_at=time.monotonic(),
            # By a clock that is an hour ahead it has expired: each connection would mint one of its own.
            seconds=min(left, _LIFE_SECONDS) if left > 0 else _UNKNOWN_LIFE_SECONDS,
            skew_seconds=-left if left <= 0 else min(_LIFE_SECONDS - left, 0.0),
        )

    def _connected(self) -> WorkspaceClient:
        if self._client is None:
            config = Config(
                http_timeout_seconds=_TRY_SECONDS,
                retry_timeout_seconds=_SDK_RETRIES_SECONDS,
                product="outlast",
            )
            self._client = WorkspaceClient(config=config)
        return self._client

    # -- the three ways ------------------------------------------------------------------------------------------------

    def _token(self, client: WorkspaceClient) -> tuple[str | None, str | None, datetime | None]:
        """Host, token and when the token expires."""
        if isinstance(self._target, Instance):
            instance = self._instance(client, self._target)
            given = client.database.generate_database_credential(
                request_id=str(uuid4()), instance_names=[instance.name]
            )
            return instance.read_write_dns, given.token, _time(given.expiration_time)
        endpoint = self._endpoint(client, self._target)
        minted = client.postgres.generate_database_credential(endpoint=endpoint.name or "")
        expires_at = minted.expire_time.ToDatetime(UTC) if minted.expire_time else None
        hosts = endpoint.status.hosts if endpoint.status else None
        return hosts.host if hosts else None, minted.token, expires_at

    def _instance(self, client: WorkspaceClient, target: Instance) -> DatabaseInstance:
        if not target.is_host:
            instance = client.database.get_database_instance(target.name)
        elif uid := _UID_IN_HOST.match(target.name.lower()):
            instance = client.database.find_database_instance_by_uid(uid=uid[1])
        else:
            instance = self._instance_at(client, target.name.lower())
        if instance.effective_stopped or instance.stopped:
            raise LoginFault(
                f"{target} is stopped",
                f"Start it: `databricks database update-database-instance {instance.name} stopped "
                "--json '{\"stopped\": false}'`",
                lasting=True,
            )
        return instance

    def _instance_at(self, client: WorkspaceClient, host: str) -> DatabaseInstance:
        for instance in client.database.list_database_instances():
            if host in (instance.read_write_dns, instance.read_only_dns):
                return instance
        raise self._not_found()

    def _endpoint(self, client: WorkspaceClient, target: Endpoint | Branch) -> EndpointFacts:
        if isinstance(target, Endpoint):
            found = client.postgres.get_endpoint(name=target.name)
        else:
            found = self._endpoint_of(client, target)
        if found.status is not None and found.status.disabled:
            raise LoginFault(
                f"The endpoint {found.name} is disabled",
                "Enable it: Lakebase > the project > Branches > Computes > Edit",
                lasting=True,
            )
        return found

    def _endpoint_of(self, client: WorkspaceClient, branch: Branch) -> EndpointFacts:
        """The one that can be written to: a branch has one at most."""
        endpoints = list(client.postgres.list_endpoints(parent=branch.name))
        for endpoint in endpoints:
            if endpoint.status is not None and endpoint.status.endpoint_type is EndpointType.ENDPOINT_TYPE_READ_WRITE:
                return endpoint
        have = ", ".join(str(endpoint.name) for endpoint in endpoints) or "none at all"
        raise LoginFault(
            f"{branch} has no endpoint that can be written to; it has {have}",
            f"`databricks postgres create-endpoint {branch.name} …` makes one, or name another branch",
            lasting=True,
        )

    # -- what goes wrong -----------------------------------------------------------------------------------------------

    @contextmanager
    def _explained(self) -> Generator[None]:
        try:
            yield
        except LoginFault:
            raise
        except NotFound:
            raise self._not_found() from None
        except PermissionDenied as error:
            raise LoginFault(
                f"{self._who()} may not use {self._target}: {_said(error)}",
                "Give it the permission CAN USE there, or add the database to the app's resources",
                lasting=True,
            ) from None
        except Unauthenticated as error:
            raise self._refused(_said(error)) from None
        except DatabricksError as error:
            raise LoginFault(f"The workspace answers with {_said(error)}", lasting=False) from None
        except (RequestException, TimeoutError) as error:
            raise self._silent(error) from None
        except (ValueError, OSError) as error:  # what the SDK raises when it has no login, or one that is refused
            if _failed_request(error):  # or could not ask where logins are given
                raise self._silent(error) from None
            raise self._refused(_said(error)) from None
        except Exception as error:  # noqa: BLE001 — the SDK takes an answer apart that is none
            raise LoginFault(
                f"What answers at {self._host()} is not understood ({type(error).__name__})",
                "Is DATABRICKS_HOST the address of a workspace?",
                lasting=False,
            ) from None

    def _not_found(self) -> LoginFault:
        kind = "database list-database-instances" if isinstance(self._target, Instance) else "postgres list-projects"
        return LoginFault(
            f"The workspace {self._host()} has not got {self._target}, or does not show it to {self._who()}",
            f"{self._target.variable} names it; `databricks {kind}` shows what there is",
            lasting=True,
        )

    def _silent(self, error: Exception) -> LoginFault:
        kind = type(error.__cause__ or error).__name__
        return LoginFault(
            f"The workspace {self._host()} does not answer ({kind})"
            if self._client
            else "What DATABRICKS_HOST names does not answer as a workspace does",
            "Is DATABRICKS_HOST right, and does this machine reach it?",
            lasting=False,
        )

    def _refused(self, said: str) -> LoginFault:
        if self._client is None:
            return LoginFault(f"There is no login to a Databricks workspace: {said}", _LOG_IN, lasting=True)
        return LoginFault(
            f"The workspace {self._host()} refuses the login of {self._who()}: {said}",
            "It was revoked, or it has expired: `databricks auth login`, or a new secret for the service principal",
            lasting=True,
        )

    def _host(self) -> str:
        return self._client.config.host if self._client else "(unknown)"

    def _who(self) -> str:
        config = self._client.config if self._client else None
        return self._user or (config.client_id if config else None) or "this login"


def _failed_request(error: BaseException | None) -> bool:
    """Whether that is what the SDK's error comes from."""
    while error is not None and not isinstance(error, RequestException):
        error = error.__cause__
    return error is not None


def _time(text: str | None) -> datetime | None:
    """None where it cannot be read: the token may be as good as any."""
    try:
        time = datetime.fromisoformat(text or "")
    except ValueError:
        return None
    return time if time.tzinfo else time.replace(tzinfo=UTC)


def _said(error: Exception) -> str:
    """The first line of what it says. Never a whole answer, which may hold anything."""
    lines = [line for line in str(error).splitlines() if line.strip()]
    text = lines[0].partition(" Config: ")[0].strip() if lines else type(error).__name__  # the SDK adds its settings
    return text if len(text) <= _SAID_CHARACTERS else text[:_SAID_CHARACTERS] + "…"
