"""Migrations: each once, in order, whoever runs them and however they are interrupted."""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
import sys
import uuid
from collections.abc import Generator
from dataclasses import replace
from importlib.resources import files
from pathlib import Path

import psycopg
import pytest
from psycopg.conninfo import make_conninfo
from psycopg.sql import SQL, Identifier

from outlast.infra import checkpoint_tables
from outlast.infra.migrate import Migration, migrate, read, shipped
from outlast.shared.connections import Database, fixed
from outlast.shared.domain.errors import SchemaMismatch, Unavailable
from outlast.shared.domain.runs import RunStatus
from outlast.shared.store import schema
from tests.conftest import ADMIN_URL, named
from tests.support.schema import COMMITTED, dumped


@pytest.fixture
def empty_url() -> Generator[str]:
    """A database without anything of ours."""
    name = f"empty_{uuid.uuid4().hex}"
    with psycopg.connect(os.environ[ADMIN_URL], autocommit=True) as connection:
        connection.execute(SQL("CREATE DATABASE {}").format(Identifier(name)))
    yield named(os.environ[ADMIN_URL], name)
    with psycopg.connect(os.environ[ADMIN_URL], autocommit=True) as connection:
        connection.execute(SQL("DROP DATABASE {} WITH (FORCE)").format(Identifier(name)))


def database(url: str, name: str = "outlast") -> Database:
    return Database(fixed(url), schema=name, application="tests")


@pytest.mark.parametrize("name", ["outlast", "Odd name", 'quo"te', "päth", "a,b", "select"])
async def test_any_schema_name_works_and_the_second_run_does_nothing(empty_url: str, name: str) -> None:
    target = database(empty_url, name)

    assert await migrate(target, shipped()) == shipped()
    assert await migrate(target, shipped()) == []
    async with target.pooled(max_connections=1):
        await target.run(schema.check)


async def test_a_role_that_may_only_use_the_schema_sees_that_nothing_is_to_be_done(empty_url: str) -> None:
    await migrate(database(empty_url), shipped())
    role = f"guest_{uuid.uuid4().hex}"
    with psycopg.connect(empty_url, autocommit=True) as connection:
        connection.execute(SQL("CREATE ROLE {} LOGIN").format(Identifier(role)))
        connection.execute(SQL("GRANT USAGE ON SCHEMA outlast TO {}").format(Identifier(role)))
        connection.execute(SQL("GRANT SELECT ON ALL TABLES IN SCHEMA outlast TO {}").format(Identifier(role)))
        try:
            assert await migrate(database(make_conninfo(empty_url, user=role)), shipped()) == []
        finally:
            connection.execute(SQL("DROP OWNED BY {}").format(Identifier(role)))
            connection.execute(SQL("DROP ROLE {}").format(Identifier(role)))


def test_the_release_needs_the_newest_migration() -> None:
    assert shipped()[-1].version == schema.NEEDED_VERSION
    assert [migration.version for migration in shipped()] == list(range(1, len(shipped()) + 1))


async def test_ten_runners_at_once_apply_each_migration_once(empty_url: str) -> None:
    applied = await asyncio.gather(*(migrate(database(empty_url), shipped()) for _ in range(10)))

    assert [migration for some in applied for migration in some] == shipped()


async def test_langgraphs_tables_are_made_in_our_schema_by_several_at_once(empty_url: str) -> None:
    target = database(empty_url, "mine")
    await migrate(target, shipped())

    await asyncio.gather(*(checkpoint_tables.prepare(target) for _ in range(3)))

    with psycopg.connect(empty_url) as connection:
        found = connection.execute(
            "SELECT table_schema FROM information_schema.tables WHERE table_name = 'checkpoints'"
        )
        assert found.fetchall() == [("mine",)]


async def test_text_is_sent_as_it_is_and_a_concurrent_index_is_possible(empty_url: str, tmp_path: Path) -> None:
    (tmp_path / "0001_texts.sql").write_text(
        "CREATE TABLE texts (t text DEFAULT '100% :sure $1');\n"
        "CREATE FUNCTION f() RETURNS int LANGUAGE plpgsql AS $$ BEGIN RETURN 1; END; $$;"
    )
    (tmp_path / "0002_index.sql").write_text(
        "-- outlast: no transaction\nCREATE INDEX CONCURRENTLY IF NOT EXISTS texts_t ON texts (t)"
    )
    (tmp_path / "notes.txt").write_text("not a migration")

    applied = await asyncio.gather(*(migrate(database(empty_url), read(tmp_path)) for _ in range(3)))

    assert sum(map(len, applied)) == 2
    with psycopg.connect(empty_url) as connection:
        connection.execute("INSERT INTO outlast.texts DEFAULT VALUES")
        assert connection.execute("SELECT t FROM outlast.texts").fetchall() == [("100% :sure $1",)]


async def test_a_failing_migration_leaves_nothing_behind(empty_url: str) -> None:
    good = Migration(1, "0001_good.sql", "CREATE TABLE good (id int)")
    bad = Migration(2, "0002_bad.sql", "CREATE TABLE half (id int); SELECT 1 / 0")

    with pytest.raises(psycopg.errors.DivisionByZero):
        await migrate(database(empty_url), [good, bad])

    fixed_ = replace(bad, text="CREATE TABLE half (id int)")
    assert await migrate(database(empty_url), [good, fixed_]) == [fixed_]


async def test_a_changed_or_unknown_migration_is_refused(empty_url: str) -> None:
    await migrate(database(empty_url), shipped())
    changed = [replace(shipped()[0], text="SELECT 1"), *shipped()[1:]]

    with pytest.raises(SchemaMismatch, match="never edited"):
        await migrate(database(empty_url), changed)
    with pytest.raises(SchemaMismatch, match="does not know"):
        await migrate(database(empty_url), [])


async def test_a_killed_runner_blocks_nobody(empty_url: str, tmp_path: Path) -> None:
    (tmp_path / "0001_slow.sql").write_text("CREATE TABLE slow (id int); SELECT pg_sleep(600)")
    program = (
        "import asyncio, pathlib, sys\n"
        "from outlast.infra.migrate import migrate, read\n"
        "from outlast.shared.connections import Database, fixed\n"
        "target = Database(fixed(sys.argv[1]), schema='outlast', application='doomed')\n"
        "asyncio.run(migrate(target, read(pathlib.Path(sys.argv[2]))))\n"
    )
    doomed = subprocess.Popen([sys.executable, "-c", program, empty_url, str(tmp_path)])  # noqa: ASYNC220 — to be killed
    with psycopg.connect(empty_url, autocommit=True) as connection:
        sleeping = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'doomed' AND query LIKE '%pg_sleep%'"
        while connection.execute(sleeping).fetchone() == (0,):
            assert doomed.poll() is None
        with pytest.raises(Unavailable, match="held the lock"):
            await migrate(database(empty_url), shipped(), wait_seconds=0.1)
        doomed.kill()
        doomed.wait()
        # The server notices the lost client when the statement ends; an operator would end it like this.
        connection.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'doomed'")

    assert await migrate(database(empty_url), shipped()) == shipped()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("DROP SCHEMA outlast CASCADE", "no Outlast schema"),
        ("DELETE FROM outlast.schema_migrations", "this release needs"),
        ("INSERT INTO outlast.schema_migrations VALUES (999, '0999_future.sql', 'x')", "upgrade Outlast"),
    ],
)
async def test_another_schema_version_is_refused_in_words(database_url: str, change: str, words: str) -> None:
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute(change.encode())

    target = database(database_url)
    async with target.pooled(max_connections=1):
        with pytest.raises(SchemaMismatch, match=words):
            await target.run(schema.check)


def test_the_committed_schema_is_what_the_migrations_make(database_url: str) -> None:
    assert COMMITTED.read_text() == dumped(database_url), "run `make schema`"


def test_the_statuses_are_the_schemas_own(database_url: str) -> None:
    with psycopg.connect(database_url) as connection:
        [(check,)] = connection.execute(
            "SELECT pg_get_constraintdef(oid) FROM pg_constraint WHERE conname = 'status_is_known'"
        ).fetchall()

    assert set(re.findall(r"'(\w+)'", check)) == {status.value for status in RunStatus}


def test_migrations_are_in_the_package() -> None:
    assert any(file.name.endswith(".sql") for file in files("outlast.infra").joinpath("migrations").iterdir())
