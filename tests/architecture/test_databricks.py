"""infra/databricks: the bundle is right, and what is wrong in a copy of it is found."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.bundle import ROOT, Bundle

FOLDER = ROOT / "infra/databricks"


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    made = shutil.ignore_patterns("*.whl", ".databricks")
    return Path(shutil.copytree(FOLDER, tmp_path / "bundle", ignore=made))


def test_nothing_is_wrong_with_either_form() -> None:
    bundle = Bundle(FOLDER)
    assert [form.name for form in bundle.forms()] == ["api-and-workers.yml", "one-app.yml"]
    assert bundle.problems() == []


def offered(text: str) -> list[dict[str, Any]]:
    """What the comments offer instead of the lines above them."""
    return yaml.safe_load("\n".join(re.findall(r"^ *# (- name:.*|  .*)$", text, re.MULTILINE)))


def test_the_form_for_a_provisioned_instance_is_right_too(copy: Path) -> None:
    form, described = copy / "one-app.yml", copy / "one/app.yaml"
    bundle, app = yaml.safe_load(form.read_text()), yaml.safe_load(described.read_text())
    bundle["resources"]["apps"]["outlast"]["resources"] = offered(form.read_text())
    app["env"] = offered(described.read_text()) + app["env"][1:]
    form.write_text(yaml.safe_dump(bundle))
    described.write_text(yaml.safe_dump(app))
    assert "instance_name: NAME" in form.read_text() and "LAKEBASE_INSTANCE_NAME" in described.read_text()
    assert Bundle(copy).problems() == []


@pytest.mark.parametrize(
    ("file", "right", "wrong", "told"),
    [
        ("databricks.yml", "- one-app.yml", "- oneapp.yml", "include"),
        ("databricks.yml", "# - api-and-workers.yml", "- api-and-workers.yml", "include"),
        ("databricks.yml", "mode: production", "mode: prod", "prod for production"),
        ("databricks.yml", "default: true", "default: false", "dev, and only dev"),
        ("databricks.yml", "root_path:", "root:", "workspace.root_path"),
        ("databricks.yml", "  app_name:\n    description", "  name:\n    description", "app_name is not declared"),
        ("databricks.yml", "app_name: outlast-dev", "app_name: outlast_dev", "the name outlast_dev"),
        ("databricks.yml", "sync:", "synch:", "unknown key synch"),
        ("databricks.yml", "- api/*.whl", "- api/wheel", "the wheel in api is not uploaded"),
        ("one-app.yml", "compute_size: MEDIUM", "compute_size: SMALL", "compute_size: SMALL"),
        ("one-app.yml", "./one", "./two", "has no app.yaml"),
        ("one-app.yml", "permission:", "permision:", "unknown key permision"),
        ("one-app.yml", "CAN_CONNECT_AND_CREATE", "CAN_USE", "permission CAN_USE"),
        ("one-app.yml", "branch: ${var.lakebase_branch}", "branch: ${var.branch}", "the variable branch"),
        ("one-app.yml", "          postgres:\n", "          lakebase:\n", "a resource has a name and is one of"),
        ("api-and-workers.yml", "./worker", "./api", "two apps share a source_code_path"),
        ("api-and-workers.yml", "            scope: ${var.secret_scope}\n", "", "secret: scope is missing"),
        ("api-and-workers.yml", "- name: redis", "- name: valkey", "the app has no resource redis"),
        ("one/app.yaml", "valueFrom: postgres", "valueFrom: lakebase", "the app has no resource lakebase"),
        ("one/app.yaml", "valueFrom: postgres", "value_from: postgres", "either value or valueFrom"),
        ("one/app.yaml", "OUTLAST_AGENTS", "OUTLAST_AGENT", "OUTLAST_AGENT is no setting"),
        ("one/app.yaml", "OUTLAST_LOG_FORMAT", "OUTLAST_AGENTS", "OUTLAST_AGENTS is set twice"),
        ("one/app.yaml", "value: databricks", "value: none", "OUTLAST_AUTH: whoever"),
        ("one/app.yaml", "value: json", "value: xml", "log_format"),
        ("one/app.yaml", '"serve"', '"server"', "no command of outlast: outlast server"),
        ("one/app.yaml", '"serve"', '"migrate"', "migrate does not stay"),
        ("one/app.yaml", '"outlast"', '"uvicorn"', "uvicorn is not ours"),
        ("api/app.yaml", '"--port", "$DATABRICKS_APP_PORT"', '"--port", "9000"', "api listens elsewhere: --port"),
        ("api/app.yaml", '"--host", "0.0.0.0", ', "", "api listens elsewhere: --host"),
        ("api/app.yaml", "valueFrom: redis", "value: redis://:secret@host", "REDIS_URL is a secret"),
        ("worker/app.yaml", " --health-port $DATABRICKS_APP_PORT", "", "worker listens elsewhere"),
        ("worker/app.yaml", "--health-port", "--healthport", "--healthport"),
        ("worker/app.yaml", 'value: "8"', 'value: "25"', "a drain of 25 s does not fit into 15 s"),
        ("worker/app.yaml", 'value: "8"', "value: 8", "a value is a text"),
        ("worker/requirements.txt", "0.1.0-", "0.2.0-", "requirements.txt has no ./outlast-0.1.0"),
        ("api/requirements.txt", "whl[api]", "whl[worker]", "requirements.txt has no ./outlast-0.1.0"),
    ],
)
def test_what_is_wrong_is_found(copy: Path, file: str, right: str, wrong: str, told: str) -> None:
    text = (copy / file).read_text()
    assert right in text
    (copy / file).write_text(text.replace(right, wrong, 1))
    assert [problem for problem in Bundle(copy).problems() if told in problem]
