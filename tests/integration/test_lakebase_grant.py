"""`outlast lakebase grant`: what it prints and what it does, and that nobody gets more by a strange name."""

from __future__ import annotations

from collections.abc import Generator

import psycopg
import pytest
from psycopg.sql import SQL, Identifier
from typer.testing import CliRunner, Result

from outlast.infra.cli import app
from outlast.shared.lakebase import lakebase
from tests.support.directory import Principal
from tests.support.workspace import Rights, Workspace
from tests.support.workspace_roles import databricks_auth

OWNER = "owner@example.com"


@pytest.fixture
def workspace(database_url: str) -> Generator[Workspace]:
    with psycopg.connect(database_url) as connection:
        if connection.info.server_version < 180000:
            pytest.skip("the tests' databricks_auth needs Postgres 18")
    with Workspace(database_url, rights=Rights.NO_ROLE) as opened:
        yield opened


@pytest.fixture
def owner(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> Principal:
    owner = workspace.add_principal(OWNER, rights=Rights.SUPERUSER)
    act_as(workspace, owner, monkeypatch)
    return owner


def act_as(workspace: Workspace, principal: Principal, monkeypatch: pytest.MonkeyPatch) -> None:
    lakebase._shared.cache_clear()  # type: ignore[reportPrivateUsage] — as another process
    for name in ("DATABRICKS_TOKEN", "DATABRICKS_CLIENT_ID", "DATABRICKS_CLIENT_SECRET"):
        monkeypatch.delenv(name, raising=False)
    for name, value in workspace.env(principal=principal).items():
        monkeypatch.setenv(name, value)


def command(*arguments: str) -> Result:
    return CliRunner().invoke(app, list(arguments))


def test_the_grants_let_a_principal_in_and_can_be_repeated(
    workspace: Workspace, owner: Principal, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with databricks_auth(database_url):
        for _ in range(2):
            done = command("lakebase", "grant", workspace.principal.name, "--run")
            assert done.exit_code == 0 and "-- done" in done.output, done.output
    act_as(workspace, workspace.principal, monkeypatch)
    assert command("runs", "list").exit_code == 0
    assert command("migrate").exit_code == 0
    assert workspace.front.accepted[-1].role == workspace.principal.name


def test_all_that_is_in_the_schema_is_granted_and_what_its_owner_makes_later(
    workspace: Workspace, owner: Principal, database_url: str
) -> None:
    role = workspace.principal.name
    with databricks_auth(database_url), psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute(SQL("SET ROLE {}").format(Identifier(OWNER)))
        connection.execute("REVOKE EXECUTE ON ALL FUNCTIONS IN SCHEMA outlast FROM PUBLIC")  # which is everybody's else
        connection.execute("ALTER DEFAULT PRIVILEGES REVOKE EXECUTE ON FUNCTIONS FROM PUBLIC")
        connection.execute("CREATE SEQUENCE outlast.former")
        assert command("lakebase", "grant", role, "--run").exit_code == 0
        connection.execute("CREATE TABLE outlast.later (number int)")
        connection.execute("CREATE SEQUENCE outlast.numbers")
        connection.execute("CREATE FUNCTION outlast.one() RETURNS int RETURN 1")
        kept = connection.execute(
            """SELECT relkind, relname FROM pg_class WHERE relnamespace = 'outlast'::regnamespace AND
               CASE relkind WHEN 'S' THEN NOT has_sequence_privilege(%(role)s, oid, 'USAGE')
                            WHEN 'r' THEN NOT has_table_privilege(%(role)s, oid, 'DELETE') ELSE false END
               UNION ALL
               SELECT 'f', proname FROM pg_proc WHERE pronamespace = 'outlast'::regnamespace
               AND NOT has_function_privilege(%(role)s, oid, 'EXECUTE')""",
            {"role": role},
        ).fetchall()
    assert kept == []


def test_grants_that_were_only_warned_about_are_said(
    workspace: Workspace, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As Postgres does for who may use what he may not grant."""
    reader, other = (workspace.add_principal(rights=rights) for rights in (Rights.CREATE, Rights.NOTHING))
    with psycopg.connect(database_url) as connection:
        for text in (
            "GRANT CONNECT, CREATE ON DATABASE {database} TO {reader} WITH GRANT OPTION",
            "GRANT USAGE, CREATE ON SCHEMA outlast TO {reader} WITH GRANT OPTION",
            "GRANT ALL ON ALL TABLES IN SCHEMA outlast TO {reader} WITH GRANT OPTION",
            "GRANT ALL ON ALL SEQUENCES IN SCHEMA outlast TO {reader} WITH GRANT OPTION",
            "GRANT ALL ON ALL FUNCTIONS IN SCHEMA outlast TO {reader} WITH GRANT OPTION",
            "REVOKE GRANT OPTION FOR DELETE ON outlast.runs FROM {reader}",
        ):
            names = {"database": Identifier(connection.info.dbname), "reader": Identifier(reader.name)}
            connection.execute(SQL(text).format(**names))
    act_as(workspace, reader, monkeypatch)
    done = command("lakebase", "grant", other.name, "--run")
    assert done.exit_code == 1 and "still lacks the table runs:" in done.output, done.output


def test_what_it_prints_does_the_same_and_can_be_repeated(
    workspace: Workspace, owner: Principal, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    printed = command("lakebase", "grant", workspace.principal.name).output
    assert not workspace.calls, "to print is to ask nobody"
    with databricks_auth(database_url):
        for _ in range(2):
            with psycopg.connect(database_url) as connection:
                connection.execute(printed)  # type: ignore[arg-type]
    act_as(workspace, workspace.principal, monkeypatch)
    assert command("runs", "list").exit_code == 0


def test_a_principal_makes_its_own_schema_where_there_is_none(
    workspace: Workspace, owner: Principal, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OUTLAST_SCHEMA", "own")
    with databricks_auth(database_url):
        assert "SCHEMA" not in command("lakebase", "grant", workspace.principal.name, "--run").output
    act_as(workspace, workspace.principal, monkeypatch)
    for arguments in (["migrate"], ["runs", "list"]):
        assert command(*arguments).exit_code == 0
    with psycopg.connect(database_url) as connection:
        row = connection.execute("SELECT nspowner::regrole::text FROM pg_namespace WHERE nspname = 'own'").fetchone()
    assert row == (f'"{workspace.principal.name}"',)


@pytest.mark.parametrize(
    "name", ["1; DROP SCHEMA outlast CASCADE", "--", "", "*", "PUBLIC", "{6ba7b810-9dad-11d1-80b4-00c04fd430c8}"]
)
def test_what_names_no_principal_is_refused(workspace: Workspace, owner: Principal, name: str) -> None:
    done = command("lakebase", "grant", "--run", "--", name)
    assert done.exit_code == 1 and "PRINCIPAL" in done.output
    assert not workspace.calls


@pytest.mark.parametrize(
    "name",
    ["""a'b"c@example.com""", """x');DROP/**/SCHEMA/**/outlast/**/CASCADE;--@example.com""", r"a\'b@example.com"],
)
def test_a_strange_name_is_only_a_name(
    workspace: Workspace, owner: Principal, database_url: str, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    user = workspace.add_principal(name, rights=Rights.NO_ROLE)
    printed = command("lakebase", "grant", user.name).output
    with databricks_auth(database_url):
        done = command("lakebase", "grant", user.name, "--run")
        with psycopg.connect(database_url) as connection:
            connection.execute(printed)  # type: ignore[arg-type]
    assert done.exit_code == 0, done.output
    act_as(workspace, user, monkeypatch)
    assert command("runs", "list").exit_code == 0


def test_a_postgres_that_is_no_lakebase_makes_no_roles(workspace: Workspace, owner: Principal) -> None:
    done = command("lakebase", "grant", workspace.principal.name, "--run")
    assert done.exit_code == 1 and "databricks_auth" in done.output and len(done.output.splitlines()) == 1


@pytest.mark.parametrize("rights", [Rights.CONNECT, Rights.CREATE])
def test_who_may_not_grant_is_told_who_may(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch, rights: Rights
) -> None:
    act_as(workspace, workspace.add_principal(rights=rights), monkeypatch)
    other = workspace.add_principal(rights=Rights.NOTHING)
    done = command("lakebase", "grant", other.name, "--run")
    assert done.exit_code == 1 and "own" in done.output and len(done.output.splitlines()) == 1, done.output
