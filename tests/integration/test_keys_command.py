"""`outlast keys`: keys are made, listed and revoked on the database."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from outlast.infra.cli import app
from outlast.shared.domain.keys import is_key

Outlast = Callable[..., Result]


@pytest.fixture
def outlast(database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Outlast:
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str, **env: str) -> Result:
        return CliRunner().invoke(app, arguments, env={"DATABASE_URL": database_url, **env})

    return run


def test_a_key_is_made_listed_and_revoked(outlast: Outlast) -> None:
    def listed() -> list[dict[str, Any]]:
        return [json.loads(line) for line in outlast("keys", "list", "--json").stdout.splitlines()]

    options = ("--principal", "alice", "--scope", "act-for-others", "--scope", "admin", "--expires-in", "90d")
    made, plain = outlast("keys", "create", "my laptop", *options), outlast("keys", "create", "bob")
    key = made.stdout.removesuffix("\n")
    assert (made.exit_code, plain.exit_code, is_key(key)) == (0, 0, True), made.stderr
    assert "alice" in made.stderr and key not in made.stderr and len(made.stderr.splitlines()) == 1

    [found] = [entry for entry in listed() if entry["principal"] == "alice"]
    assert (found["name"], found["scopes"], found["state"]) == ("my laptop", ["act-for-others", "admin"], "active")
    assert re.match(r"\d{4}-\d\d-\d\dT", found["expires_at"]) and found["last_used_at"] is None
    table = outlast("keys", "list").stdout
    assert found["hint"] in table and key not in table and "bob" in table and table.startswith("ID ")

    for given, told in (
        (found["hint"], "is revoked"),
        (found["id"], "was revoked before"),
        (key, "was revoked before"),
    ):
        revoked = outlast("keys", "revoke", given)
        assert (revoked.exit_code, told in revoked.stdout, key in revoked.stdout) == (0, True, False), revoked.stderr
    assert sorted((entry["principal"], entry["state"]) for entry in listed()) == [
        ("alice", "revoked"),
        ("bob", "active"),
    ]


def test_what_is_wrong_is_said_in_one_line_that_repeats_no_key(outlast: Outlast) -> None:
    unknown = "sk-outlast-" + "A" * 43
    wrong = [
        ("revoke", unknown), ("revoke", "key_1"), ("revoke", ""), ("revoke", "\udcff"), ("create", ""),
        ("create", "a\nb"), ("create", "a", "--principal", ""), ("create", "a", "--principal", "x" * 257),
        ("create", "a", "--expires-in", "soon"), ("create", "a", "--expires-in", "0d"),
    ]  # fmt: skip
    for arguments in wrong:
        done = outlast("keys", *arguments)
        assert (done.exit_code, done.stdout) == (1, ""), arguments
        assert re.fullmatch(r"outlast: .{10,200}\n", done.stderr) and unknown not in done.stderr, done.stderr
    assert outlast("keys", "create", "a", "--scope", "root").exit_code == 2
    listed = outlast("keys", "list")
    assert (listed.exit_code, listed.stdout, listed.stderr) == (0, "", "No keys.\n")
    away = outlast("keys", "list", DATABASE_URL="postgresql://127.0.0.1:9/none")
    assert away.exit_code == 1 and away.stderr.startswith("outlast: The database cannot be reached")
