"""infra/kubernetes, and what the rules say to broken copies of it."""

from __future__ import annotations

import shutil
import subprocess

import pytest
import yaml

from tests.support.deployment.complaints import judged
from tests.support.deployment.kubernetes_rules import FOLDER, RULES, Source

API, WORKER, MIGRATE, SETTINGS = "base/api.yaml", "base/worker.yaml", "base/migrate.yaml", "base/settings.yaml"
NETWORK, BASE = "base/network.yaml", "base/kustomization.yaml"
EXAMPLE, SCALING = "overlays/example/kustomization.yaml", "overlays/example/scaling.yaml"
BREAKS = [
    ("resources_are_listed", BASE, "  - network.yaml\n", ""),
    ("resources_are_listed", BASE, "labels:", "commonLabel:"),
    ("schemas_hold", API, "periodSeconds: 5", 'periodSeconds: "5"'),
    ("schemas_hold", WORKER, "terminationGracePeriodSeconds", "terminationGracePeriodSecond"),
    ("schemas_hold", SCALING, "pollingInterval", "pollInterval"),
    ("images_are_pinned_and_ours", API, "outlast-api:0.1.0", "outlast-api:latest"),
    ("images_are_pinned_and_ours", EXAMPLE, "newTag: 1.0.0", "newTag: latest"),
    ("commands_are_ours", WORKER, '"--children", "2"', '"--children", "none"'),
    ("commands_are_ours", API, '"--port", "8000"', '"--listen", "8000"'),
    ("ports_agree", WORKER, "containerPort: 8081", "containerPort: 8080"),
    ("ports_agree", NETWORK, "ports: [{port: 8000}]", "ports: [{port: 80}]"),
    (
        "probes_ask_the_right_question",
        API,
        "livenessProbe: {httpGet: {path: /health",
        "livenessProbe: {httpGet: {path: /ready",
    ),
    ("probes_ask_the_right_question", WORKER, "          readinessProbe", "          # readinessProbe"),
    ("stopping_has_time", WORKER, "terminationGracePeriodSeconds: 150", "terminationGracePeriodSeconds: 60"),
    ("stopping_has_time", SETTINGS, 'OUTLAST_DRAIN_SECONDS: "120"', 'OUTLAST_DRAIN_SECONDS: "600"'),
    ("pods_are_restricted", MIGRATE, "runAsUser: 10001", "runAsUser: 0"),
    ("pods_are_restricted", API, "readOnlyRootFilesystem: true", "readOnlyRootFilesystem: false"),
    ("pods_are_restricted", WORKER, "capabilities: {drop: [ALL]}", "capabilities: {drop: [ALL], add: [NET_ADMIN]}"),
    ("resources_are_set", WORKER, ", memory: 1Gi", ""),
    ("resources_are_set", API, "sizeLimit: 64Mi", ""),
    ("variables_are_known_and_valid", SETTINGS, "OUTLAST_LOG_FORMAT: json", "OUTLAST_LOG_FORMATS: json"),
    ("variables_are_known_and_valid", SETTINGS, "OUTLAST_AUTH: api_keys", "OUTLAST_AUTH: none"),
    ("what_is_named_exists", MIGRATE, "secretRef: {name: outlast}", "secretRef: {name: outlasts}"),
    ("what_is_named_exists", SCALING, "scaleTargetRef: {name: worker}", "scaleTargetRef: {name: workers}"),
    ("what_is_named_exists", SCALING, "key: DATABASE_URL", "key: DATABASE"),
    ("selectors_select", API, "selector: {app.kubernetes.io/name: api}", "selector: {app.kubernetes.io/name: worker}"),
    ("disruptions_are_bounded", API, "minAvailable: 1", "minAvailable: 2"),
    ("there_are_no_secrets", SETTINGS, "OUTLAST_LOG_FORMAT: json", "DATABASE_URL: postgresql://a:b@c/d"),
]


def test_nothing_is_wrong_with_it() -> None:
    assert judged(Source.of(), RULES) == []


@pytest.mark.parametrize(("rule", "file", "whole", "broken"), BREAKS)
def test_a_broken_copy_is_refused_by_the_rule_for_it(rule: str, file: str, whole: str, broken: str) -> None:
    text = (FOLDER / file).read_text("utf-8")
    assert whole in text
    assert rule in {complaint.rule for complaint in judged(Source.of({file: text.replace(whole, broken, 1)}), RULES)}


def test_every_rule_refuses_something() -> None:
    assert {rule.__name__ for rule in RULES} == {rule for rule, *_ in BREAKS}


@pytest.mark.skipif(shutil.which("kubectl") is None, reason="no kubectl here to render with")
def test_kubectl_renders_the_example_with_its_images() -> None:
    done = subprocess.run(["kubectl", "kustomize", str(FOLDER / "overlays/example")], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    rendered = list(yaml.safe_load_all(done.stdout))
    images = {
        manifest["metadata"]["name"]: manifest["spec"]["template"]["spec"]["containers"][0]["image"]
        for manifest in rendered
        if manifest["kind"] in ("Deployment", "Job")
    }
    assert set(images) == {"api", "worker", "migrate"}
    assert all(image.startswith("registry.example.com/") for image in images.values())
    assert {manifest["metadata"].get("namespace") for manifest in rendered if manifest["kind"] != "Namespace"} == {
        "outlast"
    }
