"""Lakebase through the real databricks-sdk: the database that is found, the login to it, and what is said of faults."""

from __future__ import annotations

import asyncio
from collections.abc import Generator

import pytest
from psycopg.conninfo import conninfo_to_dict
from typer.testing import CliRunner

from outlast.infra.cli import app
from outlast.shared import settings
from outlast.shared.connections import Database
from outlast.shared.connections.address import minted
from outlast.shared.domain.errors import Unavailable
from outlast.shared.lakebase import lakebase
from tests.support import workspace_faults as faults
from tests.support.directory import Endpoint, Instance
from tests.support.waiting import until
from tests.support.workspace import BRANCH, PROJECT, Rights, Workspace

OTHER = "127.0.0.2"


@pytest.fixture
def workspace(database_url: str) -> Generator[Workspace]:
    forget()
    with Workspace(database_url, hosts=(OTHER,)) as opened:
        yield opened


@pytest.fixture
def named(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """The environment of a process that uses the workspace's instance."""
    for name, value in workspace.env().items():
        monkeypatch.setenv(name, value)
    return monkeypatch


def opened() -> Database:
    return Database.of(settings.load(), application="tests")


async def login() -> str:
    """The role of a new connection."""
    connection = await opened().connect()
    async with connection:
        row = await (await connection.execute("SELECT current_user")).fetchone()
    assert row is not None
    return row[0]


def forget() -> None:
    """As another process: without a login, and without a workspace that it knows."""
    lakebase._shared.cache_clear()  # type: ignore[reportPrivateUsage]


async def refusal() -> str:
    with pytest.raises(Unavailable) as error:
        await login()
    return error.value.message


# -- which database ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("way", ["endpoint", "project", "instance"])
async def test_each_way_names_a_database(workspace: Workspace, monkeypatch: pytest.MonkeyPatch, way: str) -> None:
    libpqs = {"PGHOST": OTHER, "PGHOSTADDR": "127.0.0.3", "PGPORT": "1", "PGPASSWORD": "x", "PGSSLMODE": "disable"}
    for name, value in {**libpqs, **workspace.env(way)}.items():  # type: ignore[arg-type]
        monkeypatch.setenv(name, value)
    assert await login() == workspace.principal.name
    assert workspace.mints[0].places == (workspace.instance.name if way == "instance" else workspace.endpoint.name,)


async def test_an_endpoint_wins_over_a_branch_and_a_branch_over_an_instance(
    workspace: Workspace, named: pytest.MonkeyPatch
) -> None:
    directory = workspace.directory
    directory.endpoints.append(of_branch := Endpoint(f"{PROJECT}/branches/other/endpoints/main", OTHER))
    named.setenv("LAKEBASE_AUTOSCALING_ENDPOINT", workspace.endpoint.name)
    named.setenv("LAKEBASE_AUTOSCALING_PROJECT", "agents")
    named.setenv("LAKEBASE_AUTOSCALING_BRANCH", "other")
    ways = [
        (workspace.endpoint.name, ("LAKEBASE_AUTOSCALING_ENDPOINT",)),
        (of_branch.name, ("LAKEBASE_AUTOSCALING_PROJECT", "LAKEBASE_AUTOSCALING_BRANCH")),
        (workspace.instance.name, ()),
    ]
    for place, variables in ways:
        await login()
        assert workspace.mints[-1].places == (place,)
        for variable in variables:
            named.delenv(variable)


async def test_a_database_url_wins_over_all(workspace: Workspace, named: pytest.MonkeyPatch, database_url: str) -> None:
    named.setenv("DATABASE_URL", database_url)
    assert await login() != workspace.principal.name
    assert not workspace.calls


@pytest.mark.parametrize("known_by", ["host", "uid", "UID"])
async def test_an_instance_is_named_by_its_host_too(
    workspace: Workspace, named: pytest.MonkeyPatch, known_by: str
) -> None:
    workspace.directory.instances.insert(0, Instance("another", "127.0.0.3"))
    instance = Instance("second", OTHER)
    workspace.directory.instances.append(instance)
    host = OTHER if known_by == "host" else f"instance-{instance.uid}.database.cloud.databricks.com"
    named.setenv("LAKEBASE_INSTANCE_NAME", host.upper() if known_by == "UID" else host)
    await login()
    assert (workspace.mints[-1].places, workspace.front.logins[-1].host) == (("second",), OTHER)


async def test_of_several_endpoints_the_one_that_takes_writes_is_used(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    read_only = Endpoint(f"{BRANCH}/endpoints/a-replica", OTHER, kind="ENDPOINT_TYPE_READ_ONLY")
    workspace.directory.endpoints.insert(0, read_only)
    for name, value in workspace.env("project").items():
        monkeypatch.setenv(name, value)
    await login()
    assert workspace.front.logins[-1].host == workspace.endpoint.host

    forget()
    workspace.directory.endpoints.remove(workspace.endpoint)
    said = await refusal()
    assert "no endpoint that can be written to" in said and read_only.name in said


# -- logins ------------------------------------------------------------------------------------------------------------


async def test_many_connections_share_one_login(workspace: Workspace, named: pytest.MonkeyPatch) -> None:
    workspace.misbehave(faults.slow(0.3), paths="/credentials")
    assert set(await asyncio.gather(*(login() for _ in range(20)))) == {workspace.principal.name}
    assert len(workspace.mints) == 1 and len(workspace.front.accepted) == 20


async def test_an_expired_login_is_replaced_before_it_is_refused(
    workspace: Workspace, named: pytest.MonkeyPatch
) -> None:
    workspace.directory.credential_seconds = 1.0

    async def third_login_is_used() -> bool:
        await login()
        return len({login.password for login in workspace.front.accepted}) >= 3

    await until(third_login_is_used)
    assert not workspace.front.refused
    assert len(workspace.front.accepted) > len(workspace.mints)


async def test_a_workspace_in_trouble_is_asked_until_it_answers(
    workspace: Workspace, named: pytest.MonkeyPatch
) -> None:
    for fault in (faults.broken(), faults.html(502), faults.truncated(), faults.empty_object(), faults.busy(0)):
        workspace.misbehave(fault, calls=1, paths="/credentials")
    assert await login() == workspace.principal.name
    assert workspace.count("/credentials") == 6


async def test_a_workspace_in_trouble_is_not_noticed_while_the_login_lasts(
    workspace: Workspace, named: pytest.MonkeyPatch
) -> None:
    workspace.directory.credential_seconds = 4.0
    await login()
    workspace.misbehave(faults.broken(), paths="")

    async def asked_again() -> bool:
        await login()
        return workspace.calls[-1].status == 500

    await until(asked_again)
    workspace.behave()
    await login()
    assert not workspace.front.refused


async def test_a_clock_that_is_an_hour_ahead_costs_no_login_each_connection(
    workspace: Workspace, named: pytest.MonkeyPatch
) -> None:
    workspace.directory.clock_ahead_seconds = -4000.0
    for _ in range(3):
        await login()
    assert len(workspace.mints) == 1


@pytest.mark.parametrize(
    ("expiry", "seconds"),
    [(None, 3600), ("soon", 3600), ("2099-01-01T00:00:00", 3600), ("2099-01-01T00:00:00Z", 3600), ("2001-01-01", 300)],
)
async def test_a_login_counts_for_an_hour_at_most_and_some_time_at_least(
    workspace: Workspace, named: pytest.MonkeyPatch, expiry: str | None, seconds: float
) -> None:
    workspace.misbehave(faults.json_of(token="a 'token\\", expiration_time=expiry), paths="/credentials")
    found = opened().lakebase
    assert found is not None and (await found.logins.get()).seconds == seconds
    parameters = conninfo_to_dict(await minted(found)())
    assert (parameters["password"], parameters["sslmode"]) == ("a 'token\\", "require")


# -- what goes wrong ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("LAKEBASE_INSTANCE_NAME", "nothing"),
        ("LAKEBASE_INSTANCE_NAME", "nothing.database.cloud.databricks.com"),
        ("LAKEBASE_AUTOSCALING_BRANCH", f"{PROJECT}/branches/nothing"),
        ("LAKEBASE_AUTOSCALING_ENDPOINT", f"{BRANCH}/endpoints/nothing"),
    ],
)
async def test_a_database_that_is_not_there_is_named(
    workspace: Workspace, named: pytest.MonkeyPatch, variable: str, value: str
) -> None:
    named.setenv(variable, value)
    said = await refusal()
    assert value in said and variable in said and workspace.url in said


async def test_a_principal_without_permission_is_told_what_it_lacks(
    workspace: Workspace, named: pytest.MonkeyPatch
) -> None:
    workspace.principal.permitted = False
    said = await refusal()
    assert "does not have permission" in said and "CAN USE" in said
    assert "Config" not in said, "the SDK adds all that it was given"


async def test_a_revoked_principal_is_told_so(workspace: Workspace, named: pytest.MonkeyPatch) -> None:
    await login()
    workspace.principal.revoked = True
    assert f"refuses the login of {workspace.principal.name}" in await refusal()
    forget()
    said = await refusal()
    assert "invalid_client" in said and workspace.principal.secret not in said


async def test_without_a_login_to_a_workspace_it_is_said_how_to_get_one(
    workspace: Workspace, named: pytest.MonkeyPatch
) -> None:
    for name in ("DATABRICKS_HOST", "DATABRICKS_CLIENT_ID", "DATABRICKS_CLIENT_SECRET"):
        named.delenv(name)
    assert "databricks auth login" in await refusal()


@pytest.mark.parametrize(
    ("answer", "paths", "told"),
    [
        (faults.html(200), "", "What DATABRICKS_HOST names does not answer"),
        (faults.json_of(), "/api/", "lacks the host"),
        (faults.Fault(200, b"[]"), "/credentials", "is not understood"),
    ],
    ids=["a page", "nothing", "a list"],
)
async def test_what_is_no_workspace_is_said_to_be_none(
    workspace: Workspace, named: pytest.MonkeyPatch, answer: faults.Fault, paths: str, told: str
) -> None:
    named.setattr("outlast.shared.lakebase.login._FIRST_PAUSE_SECONDS", 100.0)  # it is not asked again
    workspace.misbehave(answer, paths=paths)
    assert told in await refusal()


@pytest.mark.parametrize("way", ["instance", "endpoint"])
async def test_a_stopped_database_is_said_to_be_stopped(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    for name, value in workspace.env(way).items():  # type: ignore[arg-type]
        monkeypatch.setenv(name, value)
    workspace.stop()
    assert ("stopped" if way == "instance" else "disabled") in await refusal()


@pytest.mark.parametrize(("rights", "told"), [(Rights.NO_ROLE, "no role"), (Rights.NOTHING, "may not connect")])
async def test_who_may_not_log_in_is_sent_to_the_grants(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch, rights: Rights, told: str
) -> None:
    other = workspace.add_principal(rights=rights)
    for name, value in workspace.env(principal=other).items():
        monkeypatch.setenv(name, value)
    said = await refusal()
    assert told in said and other.name in said and "outlast lakebase grant" in said


async def test_the_login_of_another_role_is_refused(workspace: Workspace, named: pytest.MonkeyPatch) -> None:
    named.setenv("LAKEBASE_USER", workspace.add_principal().name)
    named.setattr("outlast.shared.lakebase.login._DISTRUST_SECONDS", -1.0)
    for _ in range(2):
        said = await refusal()
        assert "refuses the login" in said and "LAKEBASE_USER or PGUSER names" in said
    assert workspace.front.refused[-1].refused == "another principal's"
    assert len(workspace.mints) == 2, "a login that was refused is not tried again"


async def test_no_secret_is_in_what_is_said(
    workspace: Workspace,
    named: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    capsys: pytest.CaptureFixture[str],
) -> None:
    await login()
    workspace.principal.revoked = True
    said = await refusal()
    texts = said + caplog.text + "".join(capsys.readouterr()) + repr(opened().lakebase)
    assert workspace.principal.secret not in texts and workspace.mints[0].token not in texts


# -- commands ----------------------------------------------------------------------------------------------------------


def test_a_principal_that_may_make_schemas_migrates_and_lists(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    newcomer = workspace.add_principal(rights=Rights.CREATE)
    for name, value in workspace.env(principal=newcomer).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("OUTLAST_SCHEMA", "newcomers")
    for command in (["migrate"], ["runs", "list"]):
        done = CliRunner().invoke(app, command)
        assert done.exit_code == 0, done.output
    assert {login.role for login in workspace.front.accepted} == {newcomer.name}
    assert len(workspace.mints) == 1
