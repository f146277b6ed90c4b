"""Settings: read from the environment and a file, checked, and silent about secrets."""

from __future__ import annotations

from pathlib import Path

import pytest

from outlast.shared.doorbell import broker_url
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


REDIS_URLS = {
    "sentinel://:hunter2@h:26379": "Sentinel is not supported",
    "sentinel://:hunter2@h1:1;sentinel://:hunter2@h2:2": "follows the primary",
    "redis+sentinel://:hunter2@h/mymaster/0": "Sentinel is not supported",
    "rediss+cluster://:hunter2@h": "serves all keys",
    "amqp://u:hunter2@h": "redis://",
    "hunter2": "redis://",
    "host:6379/hunter2": "redis://",
    "redis://": "no host",
    "redis://:hunter2@/0": "no host",
    "redis://h:0/0": "port 0",
    "redis://h:hunter2/0": "port cannot be read",
    "redis://h:99999/0": "port cannot be read",
    "redis://[::hunter2/0": "cannot be read",
    "redis://u:1/hunter2@h": "ends the host early",
    "redis://u:#hunter2@h": "ends the host early",
    "redis://:hunter2 2@h": "space",
    "redis://h/hunter2": "not a number",
    "redis://h/-1": "not a number",
    "redis://h?db=hunter2": "not a number",
    "redis://h?hunter2=1": "only db is taken",
    "redis://h?ssl_cert_reqs=hunter2": "only db is taken",
    "rediss://h?ssl_cert_reqs=hunter2": "ssl_cert_reqs is none of none, optional, required",
    "rediss://h?hunter2": "only db, ssl_ca_certs,",
    "unix://:hunter2@": "no socket",
    "unix:///a.sock?db=hunter2": "not a number",
}


@pytest.mark.parametrize("url", REDIS_URLS)
def test_a_broker_that_is_not_supported_is_refused_without_its_address(
    monkeypatch: pytest.MonkeyPatch, url: str
) -> None:
    monkeypatch.setenv("REDIS_URL", url)

    with pytest.raises(SettingsError) as raised:
        load()
    assert raised.value.message.startswith("REDIS_URL: ") and "Value error" not in raised.value.message
    assert REDIS_URLS[url] in raised.value.message
    assert "hunter2" not in f"{raised.value!r}{raised.value.__cause__!r}"


@pytest.mark.parametrize(
    ("url", "kombus"),
    [
        ("redis://h", "redis://h"),
        ("redis://h/", "redis://h/"),
        ("redis://h/0\n", "redis://h/0"),
        ("rediss://u:p%2Fw%40@h:1/3?ssl_cert_reqs=none", "rediss://u:p%2Fw%40@h:1/3?ssl_cert_reqs=none"),
        ("redis://[::1]:6379/15", "redis://[::1]:6379/15"),
        ("rediss://h", "rediss://h?ssl_cert_reqs=required"),
        ("rediss://h?ssl_ca_certs=/a%20b", "rediss://h?ssl_ca_certs=%2Fa+b&ssl_cert_reqs=required"),
        ("redis://h?db=4", "redis://h/4"),
        ("unix:///a/b.sock", "redis+socket:///a/b.sock?virtual_host=0"),
        ("unix://u:p%2Fw@/a/b%20c.sock?db=2", "redis+socket://u:p%2Fw@/a/b%20c.sock?virtual_host=2"),
    ],
)
def test_a_broker_is_named_to_both_of_its_clients(monkeypatch: pytest.MonkeyPatch, url: str, kombus: str) -> None:
    monkeypatch.setenv("REDIS_URL", url)

    assert broker_url(load().required_redis_url()) == kombus


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
