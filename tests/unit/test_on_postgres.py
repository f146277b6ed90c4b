"""Which of the installed Postgres `make test-postgres` takes."""

from __future__ import annotations

from pathlib import Path

from tests.on_postgres import newest


def installed(root: Path, version: str, *programs: str) -> Path:
    folder = root / version / "bin"
    folder.mkdir(parents=True)
    for program in programs:
        (folder / program).touch()
    return folder


def test_the_newest_that_can_make_a_cluster_is_taken(tmp_path: Path) -> None:
    assert newest(tmp_path) is None
    installed(tmp_path, "17", "psql")  # a client's package
    installed(tmp_path, "9.6", "initdb", "postgres")
    assert newest(tmp_path) is None
    installed(tmp_path, "9", "initdb", "postgres")
    fifteen = installed(tmp_path, "15", "initdb", "postgres")
    assert newest(tmp_path) == fifteen
