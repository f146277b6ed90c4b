"""What must be true of docker-compose.yml and of the files it leans on."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from outlast.shared.settings import Settings, SettingsError, load

from . import compose, dockerfile
from .complaints import SECRET, is_pinned, known_variables, wrong_with_command
from .dockerfile import ROOT, Image

KEYS = {
    "build", "cap_add", "cap_drop", "command", "depends_on", "deploy", "entrypoint", "environment", "healthcheck",
    "image", "init", "network_mode", "networks", "ports", "read_only", "restart", "security_opt", "shm_size",
    "stop_grace_period", "tmpfs", "ulimits", "user", "volumes",
}  # fmt: skip
SERVICES = {"password", "postgres", "valkey", "migrate", "api", "worker", "proxy"}
ONCE = {"password", "migrate"}
MAKES_SECRETS = "password"
"""The only service that is root: it hands each other its file, without a network."""
_AIR_SECONDS = 10


@dataclass(frozen=True)
class Source:
    text: str
    whole: dict[str, Any]
    file: dockerfile.Dockerfile
    proxy: str
    example: str
    root: Path = ROOT

    @classmethod
    def of(cls, text: str, *, proxy: str | None = None, example: str | None = None) -> Source:
        file = dockerfile.read((ROOT / dockerfile.DOCKERFILE).read_text("utf-8"))
        proxy = proxy or (ROOT / "infra/docker/haproxy.cfg").read_text("utf-8")
        return cls(text, compose.read(text), file, proxy, example or (ROOT / ".env.example").read_text("utf-8"))

    @property
    def services(self) -> dict[str, compose.Service]:
        return self.whole["services"]

    @property
    def ours(self) -> dict[str, tuple[compose.Service, Image]]:
        """Those we build, with what their images say."""
        return {
            name: (service, self.file.image(service["build"]["target"]))
            for name, service in self.services.items()
            if "build" in service and service["build"]["target"] in self.file.stages
        }


def keys_are_known(source: Source) -> Iterator[str]:
    for key in set(source.whole) - {"name", "services", "networks", "volumes"}:
        if not key.startswith("x-"):
            yield key
    for name, service in source.services.items():
        for key in set(service) - KEYS:
            yield f"{name}: {key}"
    for name in SERVICES ^ set(source.services):
        yield f"service {name}"


def images_are_pinned(source: Source) -> Iterator[str]:
    for name, service in source.services.items():
        if not is_pinned(service.get("image", "")):
            yield f"{name}: {service.get('image')}"


def builds_have_a_target(source: Source) -> Iterator[str]:
    version = tomllib.loads((source.root / "pyproject.toml").read_text("utf-8"))["project"]["version"]
    for name, service in source.services.items():
        build = service.get("build")
        if build is None:
            continue
        if build["dockerfile"] != dockerfile.DOCKERFILE or build["target"] not in source.file.stages:
            yield f"{name}: {build}"
        if service["image"] != f"outlast-{build['target']}:{version}":
            yield f"{name}: {service['image']} is not what {build['target']} makes"


def what_is_named_exists(source: Source) -> Iterator[str]:
    for name, service in source.services.items():
        for other in service.get("depends_on", {}):
            if other not in source.services:
                yield f"{name} waits for {other}"
        for network in set(service.get("networks", [])) - set(source.whole["networks"]):
            yield f"{name} is in {network}"
        for volume in service.get("volumes", []):
            place = volume.split(":")[0]
            known = (source.root / place).exists() if place.startswith(".") else place in source.whole["volumes"]
            if not known:
                yield f"{name} mounts {place}"


def each_waits_for_what_it_needs(source: Source) -> Iterator[str]:
    wanted = {
        "postgres": {"password": "service_completed_successfully"},
        "migrate": {"postgres": "service_healthy"},
        "api": {
            "migrate": "service_completed_successfully",
            "postgres": "service_healthy",
            "valkey": "service_healthy",
        },
        "worker": {
            "migrate": "service_completed_successfully",
            "postgres": "service_healthy",
            "valkey": "service_healthy",
        },
        "proxy": {"api": "service_healthy"},
    }
    for name, needs in wanted.items():
        given = source.services.get(name, {}).get("depends_on", {})
        if {other: how["condition"] for other, how in given.items()} != needs:
            yield f"{name} waits for {given}"


def what_ends_stays_ended_and_the_rest_comes_back(source: Source) -> Iterator[str]:
    for name, service in source.services.items():
        if service.get("restart") != ("no" if name in ONCE else "unless-stopped"):
            yield f"{name}: restart {service.get('restart')}"


def health_is_asked_where_it_is_answered(source: Source) -> Iterator[str]:
    ours = source.ours
    for name, service in source.services.items():
        if name in ONCE:
            continue
        if name in ours:
            if ours[name][1].healthcheck is None or "healthcheck" in service:
                yield f"{name}: the image has the health check"
        elif service.get("healthcheck", {}).get("test", [""])[0] != "CMD":
            yield f"{name} has no health check"


def only_loopback_is_published(source: Source) -> Iterator[str]:
    for name, service in source.services.items():
        for port in service.get("ports", []):
            if name != "proxy" or not port.startswith("127.0.0.1:"):
                yield f"{name}: {port}"
        if service.get("network_mode", "none") != "none":
            yield f"{name}: network_mode {service['network_mode']}"
    if not (source.whole["networks"].get("back") or {}).get("internal"):
        yield "the network back reaches outside"
    for name in ("postgres", "valkey"):
        if source.services[name].get("networks") != ["back"]:
            yield f"{name} is in {source.services[name].get('networks')}"


def stopping_has_time(source: Source) -> Iterator[str]:
    drain = source.services["worker"]["environment"].get("OUTLAST_DRAIN_SECONDS", "25")
    hard_stop = re.search(r"hard-stop-after (\w+)", source.proxy)
    wanted = {
        "worker": float(drain) + _AIR_SECONDS,
        "api": 5.0,
        "proxy": compose.seconds(hard_stop[1]) if hard_stop else 86400.0,
        "postgres": 30.0,
    }
    for name, least in wanted.items():
        if compose.seconds(source.services[name].get("stop_grace_period", "10s")) <= least:
            yield f"{name}: {source.services[name].get('stop_grace_period')} is not above {least:g} s"


def limits_are_set(source: Source) -> Iterator[str]:
    for name, service in source.services.items():
        limits = compose.limits(service)
        if set(limits) != {"cpus", "memory", "pids"} or compose.size(limits["memory"]) < 32 * 2**20:
            yield f"{name}: {limits}"
    for name in ("api", "worker"):
        if source.services[name].get("deploy", {}).get("replicas") != 2:
            yield f"{name} is not there twice"
    cpus = float(compose.limits(source.services["worker"]).get("cpus", 0))
    if int(source.services["worker"]["environment"].get("OUTLAST_CHILDREN", 0)) != cpus:
        yield "a worker has not as many children as CPUs"


def nothing_can_be_changed_in_a_container(source: Source) -> Iterator[str]:
    for name, service in source.services.items():
        if service.get("read_only") is not True or service.get("cap_drop") != ["ALL"]:
            yield f"{name}: read_only and cap_drop"
        if service.get("security_opt") != ["no-new-privileges:true"]:
            yield f"{name}: no-new-privileges"
        if service.get("cap_add", []) != (["CHOWN"] if name == MAKES_SECRETS else []):
            yield f"{name}: cap_add {service.get('cap_add')}"
        for volume in service.get("volumes", []):
            data = name == MAKES_SECRETS or volume.split(":")[0] == name
            if not data and not volume.endswith(":ro"):
                yield f"{name} can write {volume}"
    for name, (service, _) in source.ours.items():
        places = [entry.partition(":")[0] for entry in service.get("tmpfs", [])]
        if places != ["/tmp"] or "size=" not in service["tmpfs"][0]:
            yield f"{name} can write {service.get('tmpfs')}"


def nothing_runs_as_root(source: Source) -> Iterator[str]:
    for name, service in source.services.items():
        user = str(service.get("user", source.ours[name][1].user if name in source.ours else "root"))
        if re.match(r"(root|0)(:|$)", user) and not (name == MAKES_SECRETS and service.get("network_mode") == "none"):
            yield f"{name} runs as {user}"


def variables_are_known(source: Source) -> Iterator[str]:
    known = known_variables()
    for name, (service, image) in source.ours.items():
        for variable in set(service.get("environment", {})) - known:
            yield f"{name}: {variable}"
        for variable in set(service.get("environment", {})) & (set(image.env) - {"PATH"}):
            yield f"{name} overrules {variable} of its image"


def settings_are_valid(source: Source) -> Iterator[str]:
    for name, (service, _) in source.ours.items():
        given = service["environment"]
        fields = {key.lower().removeprefix("outlast_"): value for key, value in given.items()}
        try:
            settings = load(**{key: value for key, value in fields.items() if key in Settings.model_fields})
        except (SettingsError, ValueError) as error:
            yield f"{name}: {error}"
            continue
        if not settings.agents or (name == "api" and settings.auth is None):
            yield f"{name}: OUTLAST_AGENTS and OUTLAST_AUTH"


def commands_are_ours(source: Source) -> Iterator[str]:
    for name, (service, image) in source.ours.items():
        started = [*service.get("entrypoint", image.entrypoint), *service.get("command", image.command)]
        if wrong := wrong_with_command(started):
            yield f"{name}: {wrong}"


def there_are_no_secrets(source: Source) -> Iterator[str]:
    written = yaml.load(source.text, compose.LOADER)["services"]
    for name, service in written.items():
        for variable, value in service.get("environment", {}).items():
            if (
                SECRET.search(variable)
                and not variable.endswith("_FILE")
                and not re.fullmatch(r"\$\{\w+:-\}", str(value))
            ):
                yield f"{name}: {variable} has a value"
            if re.search(r"://[^/@]*:[^/@]+@", str(value)):
                yield f"{name}: {variable} holds a password"
    for name, value in _example(source):
        if SECRET.search(name) and value:
            yield f".env.example: {name} has a value"


def the_example_names_every_variable(source: Source) -> Iterator[str]:
    used, example = compose.variables_of(source.text), dict(_example(source))
    for name in used.keys() ^ example.keys():
        yield f"{name} is only in one of docker-compose.yml and .env.example"
    for name in used.keys() & example.keys():
        if used[name] != example[name]:
            yield f"{name}: {used[name]!r} here and {example[name]!r} there"
    for block in source.example.strip().split("\n\n"):
        if not block.startswith("# "):
            yield f"no comment: {block}"


def data_is_kept(source: Source) -> Iterator[str]:
    command = " ".join(source.services["valkey"].get("command", []))
    if (
        "--appendonly yes --appendfsync everysec" not in command
        or "valkey:/data" not in source.services["valkey"]["volumes"]
    ):
        yield "valkey forgets"
    if "postgres:/var/lib/postgresql" not in source.services["postgres"]["volumes"]:
        yield "postgres forgets"
    if "pgvector" not in source.services["postgres"]["image"]:
        yield "postgres has no pgvector"


RULES = (
    keys_are_known, images_are_pinned, builds_have_a_target, what_is_named_exists, each_waits_for_what_it_needs,
    what_ends_stays_ended_and_the_rest_comes_back, health_is_asked_where_it_is_answered,
    only_loopback_is_published, stopping_has_time, limits_are_set, nothing_can_be_changed_in_a_container,
    nothing_runs_as_root, variables_are_known, settings_are_valid, commands_are_ours, there_are_no_secrets,
    the_example_names_every_variable, data_is_kept,
)  # fmt: skip


def _example(source: Source) -> list[tuple[str, str]]:
    return re.findall(r"^(\w+)=(.*)$", source.example, re.M)
