"""The tests' workspace, through the real databricks-sdk and the real libpq: what it lets in, and what it refuses."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from itertools import pairwise
from typing import Any

import psycopg
import pytest
from databricks.sdk import WorkspaceClient
from databricks.sdk.core import Config
from databricks.sdk.errors import (
    BadRequest,
    InternalError,
    NotFound,
    PermissionDenied,
    Unauthenticated,
)
from databricks.sdk.errors.base import DatabricksError
from psycopg.errors import QueryCanceled

from tests.support import workspace_faults as faults
from tests.support.directory import Endpoint, Instance, Principal
from tests.support.waiting import until_sync
from tests.support.workspace import BRANCH, PROJECT, Rights, Workspace


@pytest.fixture
def workspace(database_url: str) -> Generator[Workspace]:
    with Workspace(database_url, hosts=("127.0.0.2",)) as opened:
        yield opened


def client(workspace: Workspace, principal: Principal | None = None, **more: Any) -> WorkspaceClient:
    who = principal or workspace.principal
    login: dict[str, Any] = (
        {"token": who.secret} if who.is_user else {"client_id": who.name, "client_secret": who.secret}
    )
    return WorkspaceClient(config=Config(host=workspace.url, config_file="/dev/null", **login, **more))


def minted(workspace: Workspace, principal: Principal | None = None) -> str:
    found = client(workspace, principal).database.generate_database_credential(instance_names=["lakebase"])
    assert found.token
    return found.token


def connected(workspace: Workspace, password: str, *, user: str | None = None, **more: object) -> psycopg.Connection:
    options = {"dbname": workspace.database, "sslmode": "require", "autocommit": True, "host": "127.0.0.1", **more}
    return psycopg.connect(port=workspace.port, user=user or workspace.principal.name, password=password, **options)  # type: ignore[arg-type]


def refused(workspace: Workspace, password: str, **more: object) -> str:
    with pytest.raises(psycopg.OperationalError) as error:
        connected(workspace, password, **more)  # type: ignore[arg-type]
    return str(error.value)


def test_a_minted_credential_logs_in(workspace: Workspace) -> None:
    with connected(workspace, minted(workspace)) as connection:
        row = connection.execute("SELECT current_user, current_database()").fetchone()
        assert connection.pgconn.ssl_in_use
    assert row == (workspace.principal.name, workspace.database)
    assert [(login.role, login.password, login.refused) for login in workspace.front.logins] == [
        (workspace.principal.name, workspace.mints[0].token, None)
    ]


def test_a_credential_is_refused_once_it_has_expired(workspace: Workspace) -> None:
    workspace.directory.credential_seconds = 1.0
    token = minted(workspace)
    with connected(workspace, token) as before:
        until_sync(lambda: time.time() > workspace.mints[0].expires_at)
        assert "password authentication failed" in refused(workspace, token)
        assert before.execute("SELECT 1").fetchone() == (1,), "it counts at the login only"
    assert [login.refused for login in workspace.front.logins] == [None, "expired"]


def test_a_credential_has_the_life_it_says(workspace: Workspace) -> None:
    of_instance = client(workspace).database.generate_database_credential(instance_names=["lakebase"])
    of_endpoint = client(workspace).postgres.generate_database_credential(endpoint=workspace.endpoint.name)
    assert of_instance.expiration_time and of_endpoint.expire_time
    said = datetime.fromisoformat(of_instance.expiration_time).timestamp()
    assert said == pytest.approx(workspace.mints[0].expires_at, abs=0.001)
    assert of_endpoint.expire_time.ToMilliseconds() == int(workspace.mints[1].expires_at * 1000)


def test_a_revoked_principal_is_refused_by_both(workspace: Workspace) -> None:
    token, known = minted(workspace), client(workspace)
    known.current_user.me()
    workspace.principal.revoked = True
    assert "password authentication failed" in refused(workspace, token)
    with pytest.raises(Unauthenticated):
        known.current_user.me()
    with pytest.raises(ValueError, match="invalid_client"):
        client(workspace).current_user.me()


def test_the_credential_of_another_principal_is_refused(workspace: Workspace) -> None:
    other = workspace.add_principal()
    assert "password authentication failed" in refused(workspace, minted(workspace, other))
    assert "password authentication failed" in refused(workspace, "a guess")
    with connected(workspace, minted(workspace, other), user=other.name) as connection:
        assert connection.info.user == other.name
    assert [login.refused for login in workspace.front.refused] == [
        "another principal's",
        "not a credential of this workspace",
    ]


def test_the_credential_for_another_database_is_refused(workspace: Workspace) -> None:
    workspace.directory.instances.append(Instance("other", "127.0.0.2"))
    token = minted(workspace)
    assert "password authentication failed" in refused(workspace, token, host="127.0.0.2")
    connected(workspace, token).close()


def test_without_tls_nobody_is_let_in(workspace: Workspace) -> None:
    assert "SSL/TLS is required" in refused(workspace, minted(workspace), sslmode="disable")
    assert workspace.front.plaintext == 1


@pytest.mark.parametrize(
    ("rights", "told"),
    [(Rights.NO_ROLE, "does not exist"), (Rights.NOTHING, "permission denied for database")],
)
def test_a_principal_without_a_role_or_rights_hears_it_from_postgres(
    workspace: Workspace, rights: Rights, told: str
) -> None:
    other = workspace.add_principal(rights=rights)
    assert told in refused(workspace, minted(workspace, other), user=other.name)


def test_a_user_logs_in_with_a_personal_access_token(workspace: Workspace) -> None:
    user = workspace.add_principal("someone@example.com")
    assert client(workspace, user).current_user.me().user_name == "someone@example.com"
    connected(workspace, minted(workspace, user), user=user.name).close()


def test_the_workspace_shows_its_databases(workspace: Workspace) -> None:
    workspace.directory.instances.append(other := Instance("other", "127.0.0.2"))
    replica = Endpoint(f"{BRANCH}/endpoints/replica", "127.0.0.2", kind="ENDPOINT_TYPE_READ_ONLY")
    workspace.directory.endpoints.append(replica)
    sdk = client(workspace)
    assert sdk.current_user.me().user_name == workspace.principal.name
    assert sdk.database.get_database_instance("lakebase").read_write_dns == "127.0.0.1"
    assert sdk.database.find_database_instance_by_uid(uid=other.uid).name == "other"
    assert [found.name for found in sdk.database.list_database_instances()] == ["lakebase", "other"]
    assert [found.name for found in sdk.postgres.list_branches(PROJECT)] == [BRANCH]
    types = {found.name: found.status.endpoint_type.value for found in sdk.postgres.list_endpoints(BRANCH)}  # type: ignore[union-attr]
    assert types == {workspace.endpoint.name: "ENDPOINT_TYPE_READ_WRITE", replica.name: "ENDPOINT_TYPE_READ_ONLY"}
    assert sdk.postgres.get_endpoint(replica.name).status.hosts.host == "127.0.0.2"  # type: ignore[union-attr]


def test_what_is_not_there_is_not_found(workspace: Workspace) -> None:
    sdk = client(workspace)
    for ask in (
        lambda: sdk.database.get_database_instance("nothing"),
        lambda: sdk.database.generate_database_credential(instance_names=["nothing"]),
        lambda: sdk.postgres.get_endpoint(f"{BRANCH}/endpoints/nothing"),
        lambda: list(sdk.postgres.list_endpoints(f"{PROJECT}/branches/nothing")),
        lambda: sdk.postgres.generate_database_credential(endpoint=f"{BRANCH}/endpoints/nothing"),
        lambda: sdk.postgres.get_project("projects/nothing"),
    ):
        with pytest.raises(NotFound):
            ask()
    with pytest.raises(BadRequest):
        sdk.database.generate_database_credential(instance_names=[])


def test_a_principal_that_may_not_is_told_so(workspace: Workspace) -> None:
    workspace.principal.permitted = False
    with pytest.raises(PermissionDenied):
        minted(workspace)
    assert client(workspace).current_user.me().user_name == workspace.principal.name


@pytest.mark.parametrize(
    ("fault", "expected"),
    [
        (faults.broken(), InternalError),
        (faults.unauthenticated(), Unauthenticated),
        (faults.forbidden(), PermissionDenied),
        (faults.html(502), DatabricksError),
        (faults.html(200), ValueError),
        (faults.truncated(), ValueError),
    ],
    ids=["500", "401", "403", "502 page", "200 page", "truncated"],
)
def test_misbehaviour_is_seen_as_errors_of_the_sdk(
    workspace: Workspace, fault: faults.Fault, expected: type[Exception]
) -> None:
    workspace.misbehave(fault, calls=1, paths="/credentials")
    with pytest.raises(expected):
        minted(workspace)
    assert minted(workspace)


def test_a_busy_workspace_is_asked_again_when_it_says(workspace: Workspace) -> None:
    workspace.misbehave(faults.busy(retry_after=0), calls=2, paths="/credentials")
    assert minted(workspace)
    assert [call.status for call in workspace.calls if "/credentials" in call.path] == [429, 429, 200]


def test_a_slow_workspace_answers_late(workspace: Workspace) -> None:
    impatient = client(workspace, http_timeout_seconds=0.2, retry_timeout_seconds=1)
    impatient.current_user.me()
    workspace.misbehave(faults.slow(60), paths="/credentials")
    with pytest.raises(TimeoutError):
        impatient.database.generate_database_credential(instance_names=["lakebase"])


async def test_a_suspended_database_wakes_for_the_next_connection(workspace: Workspace) -> None:
    token = await asyncio.to_thread(minted, workspace)
    before = await asyncio.to_thread(connected, workspace, token)
    workspace.suspend(wake_seconds=0.2, refusing=True)
    with pytest.raises(psycopg.OperationalError):
        before.execute("SELECT 1")
    assert workspace.endpoint.state == "IDLE"
    assert "starting up" in refused(workspace, token)
    until_sync(lambda: workspace.endpoint.state == "ACTIVE")
    connected(workspace, token).close()
    workspace.suspend(wake_seconds=0.2)
    connected(workspace, token).close()
    assert workspace.endpoint.state == "ACTIVE"


def test_a_stopped_database_wakes_for_nobody(workspace: Workspace) -> None:
    token, sdk = minted(workspace), client(workspace)
    workspace.stop()
    assert "stopped" in refused(workspace, token)
    assert sdk.database.get_database_instance("lakebase").state.value == "STOPPED"  # type: ignore[union-attr]
    assert sdk.postgres.get_endpoint(workspace.endpoint.name).status.disabled  # type: ignore[union-attr]
    workspace.start()
    connected(workspace, token).close()


def test_what_passes_through_is_unchanged(workspace: Workspace) -> None:
    token = minted(workspace)
    with connected(workspace, token) as one, connected(workspace, token) as other:
        text = "a ü\n" * 300_000
        assert one.execute("SELECT %s || ''", (text,)).fetchone() == (text,)
        one.execute("CREATE TEMP TABLE copied (value int)")
        with one.cursor() as cursor, cursor.copy("COPY copied FROM STDIN") as copy:
            for number in range(20_000):
                copy.write_row((number,))
        assert one.execute("SELECT count(*), sum(value) FROM copied").fetchone() == (20_000, 199_990_000)
        with one.pipeline():
            cursors = [one.execute("SELECT %s::int", (number,)) for number in range(500)]
        assert [cursor.fetchone() for cursor in cursors] == [(number,) for number in range(500)]
        one.execute("LISTEN here")
        other.execute("NOTIFY here, 'there'")
        assert [notice.payload for notice in one.notifies(timeout=20, stop_after=1)] == ["there"]


def test_a_statement_is_cancelled_through_it(workspace: Workspace) -> None:
    token = minted(workspace)
    running = "SELECT 1 FROM pg_stat_activity WHERE query = 'SELECT pg_sleep(60)' AND wait_event = 'PgSleep'"
    with connected(workspace, token) as other, connected(workspace, token) as connection, ThreadPoolExecutor(1) as pool:
        asleep = pool.submit(connection.execute, "SELECT pg_sleep(60)")
        until_sync(lambda: other.execute(running).fetchone())
        connection.cancel_safe(timeout=20)
        assert isinstance(asleep.exception(timeout=20), QueryCanceled)
    assert workspace.front.cancels == 1


def test_dropped_connections_are_gone(workspace: Workspace) -> None:
    token = minted(workspace)
    connections = [connected(workspace, token) for _ in range(3)]
    assert workspace.front.connections == 3
    workspace.front.drop()
    for connection in connections:
        with pytest.raises(psycopg.OperationalError):
            connection.execute("SELECT 1")
    connected(workspace, token).close()
    assert all(one.at <= another.at for one, another in pairwise(workspace.front.logins))


def test_secrets_are_in_no_text_of_it(workspace: Workspace) -> None:
    token = minted(workspace)
    connected(workspace, token).close()
    assert token not in repr(workspace.mints) + repr(workspace.front.logins)
