"""The doctor on a Lakebase: each cause is made, found and named, with what mends it."""

from __future__ import annotations

from collections.abc import Callable, Generator

import pytest

from outlast.shared import settings
from outlast.shared.doctor.examination import examine
from outlast.shared.domain.findings import Finding, Severity
from outlast.shared.lakebase import lakebase
from tests.support import workspace_faults as faults
from tests.support.workspace import Rights, Workspace


@pytest.fixture
def workspace(database_url: str, redis_url: str, monkeypatch: pytest.MonkeyPatch) -> Generator[Workspace]:
    lakebase._shared.cache_clear()  # type: ignore[reportPrivateUsage] — as another process
    with Workspace(database_url) as opened:
        for name, value in {**opened.env(), "REDIS_URL": redis_url}.items():
            monkeypatch.setenv(name, value)
        yield opened


async def findings() -> list[Finding]:
    seen = await examine(settings.load())
    return [finding for finding in seen.findings if finding.check in ("lakebase", "database", "schema")]


async def test_a_lakebase_that_is_well_is_said_to_be(workspace: Workspace) -> None:
    found = await findings()
    assert {(finding.check, finding.severity) for finding in found} == {
        (check, Severity.OK) for check in ("lakebase", "database", "schema")
    }
    said = found[0].seen
    assert workspace.instance.name in said and workspace.principal.name in said and "60 min" in said


def revoke(workspace: Workspace) -> None:
    workspace.principal.revoked = True


def forbid(workspace: Workspace) -> None:
    workspace.principal.permitted = False


def rename(workspace: Workspace) -> None:
    workspace.instance.name = "another"


def stop(workspace: Workspace) -> None:
    workspace.stop()


def break_down(workspace: Workspace) -> None:
    workspace.misbehave(faults.broken(), paths="/credentials")


def sign_in_page(workspace: Workspace) -> None:
    workspace.misbehave(faults.html(200), paths="/credentials")


def distrust(workspace: Workspace) -> None:
    """Its front refuses logins that are good."""
    workspace.directory.credential_seconds = -3600


@pytest.mark.parametrize(
    ("ail", "seen", "fix"),
    [
        (revoke, "invalid_client", "databricks auth login"),
        (forbid, "may not use", "CAN USE"),
        (rename, "has not got", "databricks database list-database-instances"),
        (stop, "stopped", "databricks database update-database-instance"),
        (break_down, "internal error", "asked again"),
        (sign_in_page, "workspace", "DATABRICKS_HOST"),
        (distrust, "refuses the login", "outlast lakebase grant"),
    ],
)
async def test_why_there_is_no_login_is_the_one_finding(
    workspace: Workspace, ail: Callable[[Workspace], None], seen: str, fix: str
) -> None:
    ail(workspace)
    found = [finding for finding in await findings() if finding.severity is Severity.ERROR]
    assert [finding.check for finding in found] == ["lakebase"], found
    assert seen in found[0].seen and fix in str(found[0].fix), found
    assert workspace.principal.secret not in str(found)


@pytest.mark.parametrize(
    ("rights", "check", "fix"),
    [
        (Rights.NO_ROLE, "lakebase", "outlast lakebase grant"),
        (Rights.NOTHING, "lakebase", "outlast lakebase grant"),
        (Rights.CONNECT, "schema", "GRANT CREATE ON DATABASE"),
        (Rights.CREATE, "schema", "outlast migrate"),
    ],
)
async def test_what_a_principal_lacks_is_found(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch, rights: Rights, check: str, fix: str
) -> None:
    for name, value in workspace.env(principal=workspace.add_principal(rights=rights)).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("OUTLAST_SCHEMA", "missing")
    found = [finding for finding in await findings() if finding.severity is Severity.ERROR]
    assert [(finding.check, fix in str(finding.fix)) for finding in found] == [(check, True)], found


@pytest.mark.parametrize(("ahead", "way"), [(-4000.0, "ahead of"), (600.0, "behind")])
async def test_a_clock_that_differs_from_the_workspaces_is_found(workspace: Workspace, ahead: float, way: str) -> None:
    workspace.directory.clock_ahead_seconds = ahead
    found = [finding for finding in await findings() if finding.severity is not Severity.OK]
    assert [(finding.check, finding.severity) for finding in found] == [("lakebase", Severity.WARNING)]
    assert way in found[0].seen


async def test_ways_that_do_not_count_are_pointed_out(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch, database_url: str
) -> None:
    monkeypatch.setenv("LAKEBASE_AUTOSCALING_ENDPOINT", workspace.endpoint.name)
    found = [finding for finding in await findings() if finding.severity is Severity.WARNING]
    assert [finding.fix for finding in found] == ["unset LAKEBASE_INSTANCE_NAME"]
    monkeypatch.setenv("DATABASE_URL", database_url)
    found = [finding for finding in await findings() if finding.severity is Severity.WARNING]
    assert "DATABASE_URL wins over LAKEBASE_AUTOSCALING_ENDPOINT and LAKEBASE_INSTANCE_NAME" in found[0].seen
