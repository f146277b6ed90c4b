"""What is wrong with an asset bundle of Databricks Apps, as far as that can be said without a workspace.

The keys are those of the schema that Databricks' CLI carries (`databricks bundle schema`), as far as ours are used.
"""

from __future__ import annotations

import re
import shlex
import tomllib
from collections.abc import Iterator, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import typer
import yaml

from outlast.infra.cli import app as outlast
from outlast.shared.settings import SettingsError, load, variables

ROOT = Path(__file__).parents[2]
PORT = "$DATABRICKS_APP_PORT"
KILLED_AFTER_SECONDS = 15
NEEDED_AFTER_DRAIN_SECONDS = 5
SECRETS = {"DATABASE_URL", "REDIS_URL", "OUTLAST_TOKEN_KEY"}

TOP = {"bundle", "include", "variables", "artifacts", "sync", "targets", "resources"}
TARGET = {"mode", "default", "workspace", "variables"}
APP = {"name", "description", "source_code_path", "compute_size", "resources"}
PERMISSIONS = {
    "postgres": {"CAN_CONNECT_AND_CREATE"},
    "database": {"CAN_CONNECT_AND_CREATE"},
    "secret": {"READ", "WRITE", "MANAGE"},
    "serving_endpoint": {"CAN_MANAGE", "CAN_QUERY", "CAN_VIEW"},
}
KEYS = {
    "postgres": {"branch", "database"},
    "database": {"instance_name", "database_name"},
    "secret": {"scope", "key"},
    "serving_endpoint": {"name"},
}
SIZES = {"MEDIUM", "LARGE", "XLARGE"}
LISTENING: dict[str, dict[str, str]] = {
    "serve": {},  # it finds the port by itself
    "api": {"--host": "0.0.0.0", "--port": PORT},
    "worker": {"--health-port": PORT},
}


class Bundle:
    """``problems`` names each in a sentence; none is none."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._top: dict[str, Any] = yaml.safe_load((folder / "databricks.yml").read_text())

    def forms(self) -> list[Path]:
        """The files that `include` names or could name: one of them is deployed."""
        return [file for file in sorted(self._folder.glob("*.yml")) if file.name != "databricks.yml"]

    def problems(self) -> list[str]:
        return [*self._of_bundle(), *(problem for form in self.forms() for problem in self._of_form(form))]

    def _of_bundle(self) -> Iterator[str]:
        yield from _unknown("databricks.yml", self._top, TOP)
        names = {form.name for form in self.forms()}
        included = self._top.get("include", [])
        if len(included) != 1 or not set(included) <= names:
            yield f"include: {included}, not one of {sorted(names)}"
        targets: dict[str, dict[str, Any]] = self._top["targets"]
        if {name: target.get("mode") for name, target in targets.items()} != {
            "dev": "development",
            "prod": "production",
        }:
            yield "targets: dev is for development and prod for production"
        if [name for name, target in targets.items() if target.get("default")] != ["dev"]:
            yield "targets: dev, and only dev, is the default"
        if not targets.get("prod", {}).get("workspace", {}).get("root_path"):
            yield "targets.prod: a target for production says where it is: workspace.root_path"
        for name, target in targets.items():
            yield from _unknown(f"targets.{name}", target, TARGET)
            for variable in target.get("variables", {}).keys() - self._top["variables"].keys():
                yield f"targets.{name}: the variable {variable} is not declared"

    def _of_form(self, form: Path) -> Iterator[str]:
        text = form.read_text()
        for variable in set(re.findall(r"\$\{var\.(\w+)\}", text)) - self._top["variables"].keys():
            yield f"{form.name}: the variable {variable} is not declared"
        apps: dict[str, dict[str, Any]] = yaml.safe_load(text)["resources"]["apps"]
        folders = [app.get("source_code_path") for app in apps.values()]
        if len(set(folders)) < len(folders):
            yield f"{form.name}: two apps share a source_code_path"
        for key, app in apps.items():
            for problem in self._of_app(app):
                yield f"{form.name}: {key}: {problem}"

    def _of_app(self, app: dict[str, Any]) -> Iterator[str]:
        yield from _unknown("app", app, APP)
        for target in self._top["targets"].values():
            name = str(app.get("name")).replace("${var.app_name}", target["variables"]["app_name"])
            if not re.fullmatch(r"[a-z0-9-]{2,30}", name):
                yield f"the name {name}: 2 to 30 lower case letters, digits and hyphens"
        if app.get("compute_size") not in SIZES:
            yield f"compute_size: {app.get('compute_size')}"
        resources = app.get("resources", [])
        for resource in resources:
            yield from _of_resource(resource)
        folder = self._folder / str(app.get("source_code_path"))
        if not (folder / "app.yaml").is_file():
            yield f"{app.get('source_code_path')} has no app.yaml"
            return
        for problem in of_source(folder, {resource.get("name") for resource in resources}):
            yield f"{folder.name}: {problem}"
        if f"{folder.name}/*.whl" not in self._top.get("sync", {}).get("include", []):
            yield f"sync.include: the wheel in {folder.name} is not uploaded"


def _unknown(where: str, given: Mapping[str, Any], known: set[str]) -> Iterator[str]:
    for key in given.keys() - known:
        yield f"{where}: unknown key {key}"


def _of_resource(resource: dict[str, Any]) -> Iterator[str]:
    kinds = resource.keys() - {"name", "description"}
    if "name" not in resource or len(kinds) != 1 or not kinds <= KEYS.keys():
        yield f"a resource has a name and is one of {sorted(KEYS)}: {sorted(resource)}"
        return
    (kind,) = kinds
    details = resource[kind]
    yield from _unknown(kind, details, KEYS[kind] | {"permission"})
    for key in KEYS[kind] - details.keys():
        yield f"{kind}: {key} is missing"
    if details.get("permission") not in PERMISSIONS[kind]:
        yield f"{kind}: permission {details.get('permission')}"


def of_source(folder: Path, resources: set[Any]) -> Iterator[str]:
    """What is wrong in the folder of an app that has these resources."""
    described = yaml.safe_load((folder / "app.yaml").read_text())
    yield from _unknown("app.yaml", described, {"command", "env"})
    env: list[dict[str, str]] = described.get("env", [])
    names = [entry.get("name") for entry in env]
    for name in {name for name in names if names.count(name) > 1}:
        yield f"{name} is set twice"
    for entry in env:
        yield from _of_variable(entry, resources)
    values = {entry["name"]: entry["value"] for entry in env if "value" in entry and "name" in entry}
    commands = list(commands_of(described["command"]))
    for command in commands:
        yield from _of_command(command, last=command is commands[-1])
    stays = " ".join(commands[-1][1:2])
    yield from _of_settings(values, stays)
    yield from _of_requirements(folder, stays)


def _of_variable(entry: dict[str, str], resources: set[Any]) -> Iterator[str]:
    name = entry.get("name", "")
    if entry.keys() not in ({"name", "value"}, {"name", "valueFrom"}):
        yield f"{name}: a variable has a name and either value or valueFrom: {sorted(entry)}"
        return
    if name not in variables():
        yield f"{name} is no setting"
    if "valueFrom" in entry and entry["valueFrom"] not in resources:
        yield f"{name}: the app has no resource {entry['valueFrom']}"
    if "value" in entry and not isinstance(entry["value"], str):
        yield f"{name}: a value is a text: {entry['value']!r}"
    if "value" in entry and name in SECRETS:
        yield f"{name} is a secret: valueFrom"


def commands_of(command: list[str]) -> Iterator[list[str]]:
    """The commands that a host runs one after the other; the last one stays."""
    if command[:2] != ["sh", "-c"]:
        yield command
        return
    for part in command[2].split("&&"):
        words = shlex.split(part)
        yield words[1:] if words[0] == "exec" else words


def _of_command(words: list[str], *, last: bool) -> Iterator[str]:
    if words[0] != "outlast":
        yield f"{words[0]} is not ours"
        return
    group: Any = typer.main.get_command(outlast)
    name, arguments = words[1] if len(words) > 1 else "", words[2:]
    if name not in group.commands:
        yield f"no command of outlast: {' '.join(words)}"
        return
    try:
        group.commands[name].make_context(name, [word.replace(PORT, "8000") for word in arguments])
    except Exception as error:  # noqa: BLE001 — of a class that typer keeps to itself
        yield f"{' '.join(words)}: {getattr(error, 'message', error)}"
        return
    if not last:
        return
    if name not in LISTENING:
        yield f"{name} does not stay"
        return
    given = dict(pairwise(arguments))
    for option, wanted in LISTENING[name].items():
        if given.get(option) != wanted:
            yield f"{name} listens elsewhere: {option} {wanted} is needed"


def _of_settings(values: dict[str, str], command: str) -> Iterator[str]:
    fields = {name: value for name, value in values.items() if isinstance(value, str) and name in variables()}
    if command != "worker" and fields.pop("OUTLAST_AUTH", None) != "databricks":
        yield "OUTLAST_AUTH: whoever comes through the proxy of Databricks Apps is named by it: databricks"
    try:
        given = load(**{name.removeprefix("OUTLAST_").lower(): value for name, value in fields.items()})
    except SettingsError as error:
        yield f"settings: {error.message}"
        return
    drain = given.drain_seconds if command == "worker" or "drain_seconds" in given.model_fields_set else 0
    if drain + NEEDED_AFTER_DRAIN_SECONDS > KILLED_AFTER_SECONDS:
        yield f"a drain of {drain:g} s does not fit into {KILLED_AFTER_SECONDS} s"


def _of_requirements(folder: Path, command: str) -> Iterator[str]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    lines = [line for line in (folder / "requirements.txt").read_text().splitlines() if line and line[0] != "#"]
    wanted = f"./outlast-{project['version']}-py3-none-any.whl[{command}]"
    if wanted not in lines:
        yield f"requirements.txt has no {wanted}"
    if command and command not in project["optional-dependencies"]:
        yield f"outlast has no extra {command}"
