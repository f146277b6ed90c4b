"""What must be true of infra/kubernetes."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import kubernetes_validate
import yaml

from outlast.shared.settings import Settings, SettingsError, load

from . import compose, dockerfile
from .complaints import SECRET, is_pinned, known_variables, wrong_with_command
from .dockerfile import ROOT

FOLDER = ROOT / "infra/kubernetes"
VERSION = "1.34"
Manifest = dict[str, Any]
KUSTOMIZATION = {"apiVersion", "kind", "namespace", "labels", "resources", "images", "patches"}
KEDA: Mapping[str, set[str]] = {
    "ScaledObject": {
        "scaleTargetRef", "minReplicaCount", "maxReplicaCount", "pollingInterval", "cooldownPeriod", "triggers",
    },
    "TriggerAuthentication": {"secretTargetRef"},
}  # fmt: skip
SECRET_NAME, SECRET_KEYS = "outlast", {"DATABASE_URL", "REDIS_URL"}
PROBES = {
    "api": {"startupProbe": "/ready", "readinessProbe": "/ready", "livenessProbe": "/health"},
    "worker": {"startupProbe": "/ready", "readinessProbe": "/ready", "livenessProbe": "/health"},
}
_EXIT_SECONDS = {"api": 5, "worker": 10}
"""What a part takes beyond its drain."""


@dataclass(frozen=True)
class Source:
    files: dict[str, str]
    """By their paths below infra/kubernetes."""

    @classmethod
    def of(cls, changed: Mapping[str, str] | None = None) -> Source:
        """``changed``: texts instead of those in the files, by path."""
        texts = {str(path.relative_to(FOLDER)): path.read_text("utf-8") for path in sorted(FOLDER.rglob("*.yaml"))}
        return cls({**texts, **(changed or {})})

    @cached_property
    def manifests(self) -> list[Manifest]:
        texts = [text for path, text in self.files.items() if not path.endswith("kustomization.yaml")]
        return [manifest for text in texts for manifest in yaml.load_all(text, compose.LOADER)]

    @cached_property
    def kustomizations(self) -> dict[str, Manifest]:
        return {
            str(Path(path).parent): yaml.load(text, compose.LOADER)
            for path, text in self.files.items()
            if path.endswith("kustomization.yaml")
        }

    def kind(self, *kinds: str) -> list[Manifest]:
        return [manifest for manifest in self.manifests if manifest["kind"] in kinds]

    @cached_property
    def workloads(self) -> dict[str, Manifest]:
        return {manifest["metadata"]["name"]: manifest for manifest in self.kind("Deployment", "Job")}

    def pod(self, name: str) -> Manifest:
        return self.workloads[name]["spec"]["template"]["spec"]

    def container(self, name: str) -> Manifest:
        (container,) = self.pod(name)["containers"]
        return container

    @cached_property
    def settings(self) -> dict[str, str]:
        return {key: value for manifest in self.kind("ConfigMap") for key, value in manifest["data"].items()}

    @cached_property
    def images(self) -> dict[str, dockerfile.Image]:
        file = dockerfile.read((ROOT / dockerfile.DOCKERFILE).read_text("utf-8"))
        return {name: file.image(name) for name in ("api", "worker", "migrate")}


def resources_are_listed(source: Source) -> Iterator[str]:
    for folder, kustomization in source.kustomizations.items():
        for key in set(kustomization) - KUSTOMIZATION:
            yield f"{folder}: {key}"
        here = {Path(path).name for path in source.files if str(Path(path).parent) == folder} - {"kustomization.yaml"}
        listed = {name for name in kustomization["resources"] if not name.startswith("..")}
        for name in here ^ listed:
            yield f"{folder}: {name} is only in one of folder and list"
    if {manifest["metadata"]["name"] for manifest in source.kind("Deployment", "Job")} != {"api", "worker", "migrate"}:
        yield f"workloads {list(source.workloads)}"


def schemas_hold(source: Source) -> Iterator[str]:
    for manifest in source.manifests:
        name = f"{manifest['kind']} {manifest['metadata']['name']}"
        if manifest["kind"] in KEDA:
            for key in set(manifest["spec"]) ^ KEDA[manifest["kind"]]:
                yield f"{name}: {key}"
            continue
        try:
            kubernetes_validate.validate(manifest, VERSION, strict=True)
        except kubernetes_validate.ValidationError as error:
            yield f"{name}: {error.message}"  # pyright: ignore[reportAttributeAccessIssue]


def images_are_pinned_and_ours(source: Source) -> Iterator[str]:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["version"]
    for name in source.workloads:
        if source.container(name)["image"] != f"outlast-{name}:{version}":
            yield f"{name}: {source.container(name)['image']}"
    for folder, kustomization in source.kustomizations.items():
        for image in kustomization.get("images", []):
            if image["name"].removeprefix("outlast-") not in source.workloads or not is_pinned(f"x:{image['newTag']}"):
                yield f"{folder}: {image}"


def commands_are_ours(source: Source) -> Iterator[str]:
    for name in source.workloads:
        container = source.container(name)
        if "command" in container:
            yield f"{name} has a command beside its image's"
        if wrong := wrong_with_command([*source.images[name].entrypoint, *container.get("args", [])]):
            yield f"{name}: {wrong}"


def ports_agree(source: Source) -> Iterator[str]:
    for name in PROBES:
        container = source.container(name)
        ports = {port["name"]: port["containerPort"] for port in container["ports"]}
        if set(ports.values()) != source.images[name].ports:
            yield f"{name} has {ports}, its image {source.images[name].ports}"
        for given in container.get("env", []):
            if given["name"] == "OUTLAST_HEALTH_PORT" and {int(given["value"])} != set(ports.values()):
                yield f"{name}: {given}"
        for probe in PROBES[name]:
            if container.get(probe, {}).get("httpGet", {}).get("port") not in ports:
                yield f"{name}: {probe} asks no port of it"
        open_ports = {
            port["port"]
            for policy in source.kind("NetworkPolicy")
            if policy["metadata"]["name"] == name
            for rule in policy["spec"]["ingress"]
            for port in rule["ports"]
        }
        if open_ports != set(ports.values()):
            yield f"{name}: the network opens {open_ports}"
    for service in source.kind("Service"):
        names = [port["name"] for port in source.container(service["metadata"]["name"])["ports"]]
        if [port["targetPort"] for port in service["spec"]["ports"]] != names:
            yield f"Service {service['metadata']['name']}: {service['spec']['ports']}"


def probes_ask_the_right_question(source: Source) -> Iterator[str]:
    """Liveness never asks for the database: its absence would restart everything at once."""
    for name, wanted in PROBES.items():
        given = {probe: source.container(name).get(probe, {}).get("httpGet", {}).get("path") for probe in wanted}
        if given != wanted:
            yield f"{name}: {given}"


def stopping_has_time(source: Source) -> Iterator[str]:
    drain = float(source.settings.get("OUTLAST_DRAIN_SECONDS") or Settings.model_fields["drain_seconds"].default)
    for name, exit_seconds in _EXIT_SECONDS.items():
        hook = source.container(name).get("lifecycle", {}).get("preStop", {}).get("exec", {}).get("command")
        least = (float(hook[1]) if hook else 0) + exit_seconds + (drain if name == "worker" else 0)
        if source.pod(name).get("terminationGracePeriodSeconds", 30) <= least:
            yield f"{name}: terminationGracePeriodSeconds is not above {least:g}"
    if "preStop" not in source.container("api").get("lifecycle", {}):
        yield "api ends before the Service knows"


def pods_are_restricted(source: Source) -> Iterator[str]:
    for name in source.workloads:
        pod, container = source.pod(name), source.container(name)
        context, own = pod.get("securityContext", {}), container.get("securityContext", {})
        user = f"{context.get('runAsUser')}:{context.get('runAsGroup')}"
        if context.get("runAsNonRoot") is not True or user != source.images[name].user:
            yield f"{name} runs as {user}"
        if (
            context.get("seccompProfile") != {"type": "RuntimeDefault"}
            or pod.get("automountServiceAccountToken") is not False
        ):
            yield f"{name}: seccompProfile and automountServiceAccountToken"
        if own.get("readOnlyRootFilesystem") is not True or own.get("allowPrivilegeEscalation") is not False:
            yield f"{name}: readOnlyRootFilesystem and allowPrivilegeEscalation"
        if own.get("capabilities") != {"drop": ["ALL"]}:
            yield f"{name}: capabilities {own.get('capabilities')}"
        if [mount["mountPath"] for mount in container["volumeMounts"]] != ["/tmp"]:
            yield f"{name}: /tmp alone can be written"


def resources_are_set(source: Source) -> Iterator[str]:
    for name in source.workloads:
        resources = source.container(name).get("resources", {})
        if set(resources.get("requests", {})) != {"cpu", "memory"} or "memory" not in resources.get("limits", {}):
            yield f"{name}: {resources}"
        if not all(volume["emptyDir"].get("sizeLimit") for volume in source.pod(name).get("volumes", [])):
            yield f"{name}: a volume without sizeLimit"


def variables_are_known_and_valid(source: Source) -> Iterator[str]:
    own = {given["name"] for name in source.workloads for given in source.container(name).get("env", [])}
    yield from (set(source.settings) | own) - known_variables()
    try:
        settings = load(**{key.lower().removeprefix("outlast_"): value for key, value in source.settings.items()})
    except (SettingsError, ValueError) as error:
        yield str(error)
        return
    if not settings.agents or settings.auth in (None, "none"):
        yield "OUTLAST_AGENTS, and an OUTLAST_AUTH that asks who calls"


def what_is_named_exists(source: Source) -> Iterator[str]:
    maps = {manifest["metadata"]["name"] for manifest in source.kind("ConfigMap")}
    for name in source.workloads:
        given = [next(iter(entry.values()))["name"] for entry in source.container(name)["envFrom"]]
        if given != [*maps, SECRET_NAME]:
            yield f"{name} reads {given}"
    authentications = {manifest["metadata"]["name"] for manifest in source.kind("TriggerAuthentication")}
    for scaled in source.kind("ScaledObject"):
        if scaled["spec"]["scaleTargetRef"]["name"] not in source.workloads:
            yield f"scales {scaled['spec']['scaleTargetRef']}"
        for trigger in scaled["spec"]["triggers"]:
            if trigger["authenticationRef"]["name"] not in authentications:
                yield f"asks with {trigger['authenticationRef']}"
    for manifest in source.kind("TriggerAuthentication"):
        for entry in manifest["spec"]["secretTargetRef"]:
            if entry["name"] != SECRET_NAME or entry["key"] not in SECRET_KEYS:
                yield f"takes {entry}"


def selectors_select(source: Source) -> Iterator[str]:
    labels = {name: workload["spec"]["template"]["metadata"]["labels"] for name, workload in source.workloads.items()}
    for manifest in source.kind("Deployment", "Service", "PodDisruptionBudget", "NetworkPolicy"):
        spec, name = manifest["spec"], manifest["metadata"]["name"]
        selector = spec.get("selector", spec.get("podSelector"))
        selector = selector.get("matchLabels", selector if manifest["kind"] == "Service" else {})
        if name in labels and selector != labels[name]:
            yield f"{manifest['kind']} {name} selects {selector}"


def disruptions_are_bounded(source: Source) -> Iterator[str]:
    budgets = {manifest["metadata"]["name"]: manifest["spec"] for manifest in source.kind("PodDisruptionBudget")}
    for name in PROBES:
        replicas = source.workloads[name]["spec"].get("replicas", 1)
        if name not in budgets or budgets[name].get("minAvailable", 0) >= replicas or replicas < 2:
            yield f"{name}: {replicas} replicas and {budgets.get(name)}"
        if not source.pod(name).get("topologySpreadConstraints"):
            yield f"{name} may be on one node"


def there_are_no_secrets(source: Source) -> Iterator[str]:
    for manifest in source.kind("Secret"):
        yield f"Secret {manifest['metadata']['name']}"
    for name, value in source.settings.items():
        if SECRET.search(name) or name in SECRET_KEYS or re.search(r"://[^/@]*:[^/@]+@", value):
            yield f"ConfigMap: {name}"
    for name in source.workloads:
        for given in source.container(name).get("env", []):
            if SECRET.search(given["name"]) and "value" in given:
                yield f"{name}: {given['name']}"


RULES = (
    resources_are_listed, schemas_hold, images_are_pinned_and_ours, commands_are_ours, ports_agree,
    probes_ask_the_right_question, stopping_has_time, pods_are_restricted, resources_are_set,
    variables_are_known_and_valid, what_is_named_exists, selectors_select, disruptions_are_bounded,
    there_are_no_secrets,
)  # fmt: skip
