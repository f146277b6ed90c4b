"""Settings: read from the environment and a file, checked, and silent about secrets."""

from __future__ import annotations

from pathlib import Path

import pytest

from outlast.shared.settings import SettingsError, load


def test_the_environment_wins_over_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "outlast.toml").write_text(
        'database_url = "postgresql://file/x"\nschema = "mine"\nlease_seconds = 9\n[agents]\na = "m:a"\nb = "m:b"\n'
    )
    monkeypatch.setenv("DATABASE_URL", "postgresql://environment/x")

    settings = load()

    assert settings.required_database_url() == "postgresql://environment/x"
    assert (settings.db_schema, settings.lease_seconds) == ("mine", 9)
    assert (settings.agents, settings.default_agent) == ({"a": "m:a", "b": "m:b"}, "a")


def test_agents_are_listed_in_one_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OUTLAST_AGENTS", " one = pkg.mod:agent , two=other:make.agent,")

    assert load().agents == {"one": "pkg.mod:agent", "two": "other:make.agent"}


@pytest.mark.parametrize(
    ("value", "one", "other"), [("", 3, 3), ("5", 5, 5), ("one=5", 5, 3), ("one=0, 7", 0, 7), ("0", 0, 0)]
)
def test_retries_are_counted_by_agent(monkeypatch: pytest.MonkeyPatch, value: str, one: int, other: int) -> None:
    monkeypatch.setenv("OUTLAST_MAX_RETRIES", value)

    assert [load().retry_policy(agent).max_retries for agent in ("one", "other")] == [one, other]


def test_an_empty_variable_is_an_unset_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REDIS_URL", "")

    with pytest.raises(SettingsError, match="REDIS_URL is not set"):
        load().required_redis_url()


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("OUTLAST_AGENTS", "nonsense", "name=module:attribute"),
        ("OUTLAST_AGENTS", "a=module", "name=module:attribute"),
        ("OUTLAST_BEAT_SECONDS", "3", "three times"),
        ("OUTLAST_MAX_RETRIES", "one=-1", "max_retries.one: Input should be greater than or equal to 0"),
        ("OUTLAST_MAX_RETRIES", "one=many", "max_retries"),
        ("OUTLAST_SCHEMA", "pg_mine", "pg_"),
        ("OUTLAST_SCHEMA", "x" * 49, "48 bytes"),
        ("TASK_TIMEOUT_SECONDS", "soon", "TASK_TIMEOUT_SECONDS"),
        ("TASK_TIMEOUT_SECONDS", "0", "greater than 0"),
        ("OUTLAST_AUTH", "perhaps", "auth"),
        ("OUTLAST_ALLOWED_HOSTS", "https://example.com", "without a scheme"),
        ("OUTLAST_ALLOWED_HOSTS", "example.com:8000", "without a scheme and a port"),
        ("OUTLAST_ALLOWED_HOSTS", "a b", "without a scheme"),
    ],
)
def test_what_is_wrong_is_named(monkeypatch: pytest.MonkeyPatch, name: str, value: str, words: str) -> None:
    monkeypatch.setenv(name, value)

    with pytest.raises(SettingsError, match=words):
        load()


def test_a_file_that_is_not_toml_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "outlast.toml").write_text("not toml")

    with pytest.raises(SettingsError, match=r"outlast\.toml"):
        load()


def test_secrets_are_in_no_repr_and_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", "postgresql://me:hunter2@host/x")
    monkeypatch.setenv("REDIS_URL", "redis://:hunter2@host/0")

    assert "hunter2" not in f"{load()!r}{load()}"
    monkeypatch.setenv("OUTLAST_BEAT_SECONDS", "100")
    with pytest.raises(SettingsError) as raised:
        load()
    assert "hunter2" not in f"{raised.value!r}{raised.value}{raised.value.__cause__!r}"
