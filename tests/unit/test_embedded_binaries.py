from pathlib import Path

import pytest

from outlast.infra.embedded.binaries import find_postgres, find_valkey
from outlast.infra.embedded.errors import EmbeddedError
from outlast.infra.embedded.postgres import locale_options

NOWHERE = "outlast_no_such_package"


def program(path: Path, says: str, *, code: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\necho '{says}'\nexit {code}\n")
    path.chmod(0o755)
    return path


def postgres(folder: Path, version: str) -> Path:
    program(folder / "initdb", f"initdb (PostgreSQL) {version}")
    program(folder / "postgres", f"postgres (PostgreSQL) {version} (Debian {version}-1)")
    program(folder / "pg_ctl", f"pg_ctl (PostgreSQL) {version}")
    program(folder / "psql", f"psql (PostgreSQL) {version}")
    return folder


def test_the_wheels_come_first() -> None:
    assert find_postgres().version == "18.6"
    assert find_postgres().major == "18"
    assert find_postgres().package is not None
    assert find_valkey().version == "9.1.2"


def test_the_postgres_of_path_is_second(tmp_path: Path) -> None:
    folder = postgres(tmp_path / "lib", "16.4")
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/pg_ctl").symlink_to(folder / "pg_ctl")
    postgres(tmp_path / "usr/lib/postgresql/17/bin", "17.1")

    found = find_postgres(NOWHERE, path=str(tmp_path / "bin"), root=tmp_path)

    assert (found.folder, found.version, found.major, found.package) == (folder, "16.4", "16", None)


def test_of_the_installed_ones_the_newest_complete_postgres_is_taken(tmp_path: Path) -> None:
    postgres(tmp_path / "usr/lib/postgresql/9.6/bin", "9.6.24")
    newest = postgres(tmp_path / "usr/lib/postgresql/17/bin", "17.1")
    program(tmp_path / "usr/lib/postgresql/19/bin/pg_ctl", "a client's package, without a server")

    assert find_postgres(NOWHERE, path="", root=tmp_path).folder == newest


def test_a_beta_has_a_major_version(tmp_path: Path) -> None:
    postgres(tmp_path / "usr/lib/postgresql/19/bin", "19beta1")

    assert find_postgres(NOWHERE, path="", root=tmp_path).major == "19"


def test_without_any_postgres_the_message_names_the_remedies(tmp_path: Path) -> None:
    with pytest.raises(EmbeddedError) as raised:
        find_postgres(NOWHERE, path="", root=tmp_path)

    for remedy in ("DATABASE_URL", 'pip install "outlast[dev]"', "apt install postgresql"):
        assert remedy in str(raised.value)


@pytest.mark.parametrize("name", ["valkey-server", "redis-server"])
def test_a_valkey_or_redis_of_path_is_second(tmp_path: Path, name: str) -> None:
    server = program(tmp_path / name, "Some server v=7.0.15 sha=00000000:0 malloc=jemalloc-5.2.1 bits=64")

    found = find_valkey(NOWHERE, path=str(tmp_path))

    assert (found.server, found.version) == (server, "7.0.15")


def test_without_any_valkey_the_message_names_the_remedies(tmp_path: Path) -> None:
    with pytest.raises(EmbeddedError) as raised:
        find_valkey(NOWHERE, path=str(tmp_path))

    for remedy in ("REDIS_URL", 'pip install "outlast[serve]"', "apt install valkey-server"):
        assert remedy in str(raised.value)


@pytest.mark.parametrize(("says", "code"), [("Exec format error", 126), ("something else", 0)])
def test_a_server_that_does_not_run_is_named(tmp_path: Path, says: str, code: int) -> None:
    server = program(tmp_path / "valkey-server", says, code=code)

    with pytest.raises(EmbeddedError, match=r"does not run.*set REDIS_URL") as raised:
        find_valkey(NOWHERE, path=str(tmp_path))

    assert str(server) in str(raised.value)


@pytest.mark.parametrize("major", ["15", "16", "17", "18"])
def test_the_locale_is_utf8_in_every_version(major: str) -> None:
    best = locale_options(major)[0]

    assert "--locale=C.UTF-8" in best
    assert ("--builtin-locale=C.UTF-8" in best) == (int(major) >= 17)
