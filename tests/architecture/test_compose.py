"""docker-compose.yml and the Dockerfile, as far as they can be checked without an engine."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import AliasChoices

from outlast.shared.settings import Settings

ROOT = Path(__file__).parents[2]
DOCKERFILE = (ROOT / "infra/docker/Dockerfile").read_text("utf-8")
FOREIGN = {"postgres", "valkey"}
OURS = {"migrate", "api", "worker"}


@pytest.fixture(scope="module")
def services() -> dict[str, Any]:
    return yaml.safe_load((ROOT / "docker-compose.yml").read_text("utf-8"))["services"]


def stage(name: str) -> str:
    """The instructions of one stage, continuation lines joined."""
    joined = DOCKERFILE.replace("\\\n", " ")
    (text,) = re.findall(rf"^FROM \S+ AS {name}\n(.*?)(?=^FROM |\Z)", joined, re.MULTILINE | re.DOTALL)
    return text


def names_of_settings() -> set[str]:
    """Every environment variable that a setting is read from."""
    names = set[str]()
    for field, info in Settings.model_fields.items():
        alias = info.validation_alias
        choices = alias.choices if isinstance(alias, AliasChoices) else [alias or f"OUTLAST_{field}"]
        names |= {str(choice).upper() for choice in choices}
    return names


def test_the_services_are_the_parts_and_what_they_stand_on(services: dict[str, Any]) -> None:
    assert set(services) == FOREIGN | OURS


def test_every_image_is_pinned_by_a_tag(services: dict[str, Any]) -> None:
    images = [service["image"] for service in services.values()] + re.findall(
        r"^ARG PYTHON=(\S+)", DOCKERFILE, re.MULTILINE
    )
    assert len(images) == 6
    for image in images:
        tag = image.rpartition(":")[2]
        assert re.match(r"\d+\.\d+", tag), image


def test_the_schema_is_there_before_anything_serves(services: dict[str, Any]) -> None:
    assert services["migrate"]["entrypoint"] == ["outlast", "migrate"]
    assert services["migrate"]["depends_on"] == {"postgres": {"condition": "service_healthy"}}
    assert services["migrate"]["restart"] == "no"
    for part in ("api", "worker"):
        assert services[part]["depends_on"] == {
            "migrate": {"condition": "service_completed_successfully"},
            "postgres": {"condition": "service_healthy"},
            "valkey": {"condition": "service_healthy"},
        }


def test_everything_that_stays_up_has_a_health_check_and_comes_back(services: dict[str, Any]) -> None:
    for name in FOREIGN | {"api", "worker"}:
        assert services[name]["restart"] == "unless-stopped"
    for name in FOREIGN:
        assert services[name]["healthcheck"]["test"][0] == "CMD"
    for name in ("api", "worker"):
        assert "HEALTHCHECK" in stage(name)


def test_every_variable_is_one_that_settings_read(services: dict[str, Any]) -> None:
    used = {name for service in OURS for name in services[service]["environment"]}
    assert {"DATABASE_URL", "REDIS_URL", "OUTLAST_AGENTS", "OUTLAST_AUTH"} <= used
    assert used <= names_of_settings()


def test_the_settings_are_valid(services: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in services["api"]["environment"].items():
        monkeypatch.setenv(name, value)
    settings = Settings()
    assert settings.agents == {"assistant": "examples.assistant:agent"}
    assert settings.auth == "none"


def test_an_api_without_authentication_is_published_on_loopback_only(services: dict[str, Any]) -> None:
    published = {name: service["ports"] for name, service in services.items() if "ports" in service}
    assert published == {"api": ["127.0.0.1:${PORT:-8000}:8000"]}


def test_a_worker_may_be_scaled_and_has_time_to_drain(services: dict[str, Any]) -> None:
    worker = services["worker"]
    assert "container_name" not in worker and "ports" not in worker
    assert int(worker["stop_grace_period"].removesuffix("s")) > Settings.model_fields["drain_seconds"].default + 5


@pytest.mark.parametrize("part", ["api", "worker"])
def test_both_images_hold_the_same_wheel_and_only_locked_packages(part: str) -> None:
    instructions = stage(part)
    assert f"COPY infra/docker/{part}.lock /tmp/requirements.lock" in instructions
    assert "pip install --require-hashes --no-deps -r /tmp/requirements.lock" in instructions
    assert "--mount=type=bind,from=wheel,source=/dist,target=/dist" in instructions
    assert "pip install --no-deps --no-index /dist/outlast-*.whl" in instructions
    installs = re.findall(r"pip install (.+?)(?:&&|$)", instructions.replace("\n", " && "))
    assert all("--require-hashes" in install or "--no-index" in install for install in installs)


@pytest.mark.parametrize("part", ["api", "worker"])
def test_a_part_is_not_root_and_gets_its_signals(part: str) -> None:
    instructions = stage(part)
    assert "USER outlast" in instructions
    assert f'ENTRYPOINT ["outlast", "{part}"' in instructions
    assert "STOPSIGNAL SIGTERM" in stage("base")
    assert "PYTHONSAFEPATH=1" in stage("base")


def test_the_agents_of_the_worker_are_mounted(services: dict[str, Any]) -> None:
    for mount in services["worker"]["volumes"]:
        source, target, mode = mount.split(":")
        assert target.startswith("/app/") and mode == "ro"
        assert (ROOT / source).exists()
    assert "volumes" not in services["api"]


def test_what_the_images_copy_is_not_ignored() -> None:
    kept = {
        line.removeprefix("!") for line in (ROOT / ".dockerignore").read_text("utf-8").split() if line.startswith("!")
    }
    copied = {
        source for line in re.findall(r"^COPY (?!--)(.+)", DOCKERFILE, re.MULTILINE) for source in line.split()[:-1]
    }
    assert {path.split("/")[0] for path in copied} <= kept
    assert all((ROOT / path).exists() for path in copied)
