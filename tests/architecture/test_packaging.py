"""The wheel: what is in it, and that it lives beside a user's project which has an `api` and a `shared` of its own."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import zipfile
from email.parser import Parser
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PARTS = ("api", "infra", "shared", "worker")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def contents(wheel: Path) -> set[str]:
    return set(zipfile.ZipFile(wheel).namelist())


def metadata(wheel: Path, name: str) -> str:
    with zipfile.ZipFile(wheel) as archive:
        (path,) = (entry for entry in archive.namelist() if entry.endswith(f".dist-info/{name}"))
        return archive.read(path).decode()


def test_it_holds_every_module_and_nothing_else(contents: set[str]) -> None:
    ours = {
        file.relative_to(ROOT / part).as_posix()
        for part in PARTS
        for file in (ROOT / part / "outlast").rglob("*")
        if file.is_file() and "__pycache__" not in file.parts and not file.name.startswith(".")
    }
    assert {name for name in contents if ".dist-info/" not in name} == ours


def test_it_carries_the_migrations_and_the_marks_of_typed_packages(contents: set[str]) -> None:
    migrations = {file.name for file in (ROOT / "infra/outlast/infra/migrations").glob("*.sql")}
    assert migrations
    assert {f"outlast/infra/migrations/{name}" for name in migrations} <= contents
    assert {f"outlast/{part}/py.typed" for part in PARTS} <= contents


def test_outlast_stays_a_namespace_and_brings_no_tests(contents: set[str]) -> None:
    assert "outlast/__init__.py" not in contents
    assert {name.split("/")[0] for name in contents if ".dist-info/" not in name} == {"outlast"}


def test_its_metadata_names_the_extras_the_licence_and_the_command(wheel: Path) -> None:
    head = Parser().parsestr(metadata(wheel, "METADATA"))
    extras = {"api", "worker", "serve", "migrate", "dev", "openai", "databricks", "mlflow", "otel"}
    assert set(head.get_all("Provides-Extra") or []) == extras
    assert head["License-Expression"] == "Apache-2.0"
    assert head["Requires-Python"] == ">=3.11"
    assert metadata(wheel, "entry_points.txt").split() == [
        "[console_scripts]",
        "outlast",
        "=",
        "outlast.infra.entry:main",
    ]
    assert "Apache License" in metadata(wheel, "licenses/LICENSE")


USERS_PROGRAM = """
import api, shared
assert (api.WHO, shared.WHO) == ("the user", "the user"), (api, shared)
import outlast.agent, outlast.api.app, outlast.infra.cli, outlast.shared.settings, outlast.worker
for module in (outlast.agent, outlast.api.app, outlast.infra.cli, outlast.shared.settings, outlast.worker):
    print(module.__file__)
"""


def test_a_users_own_api_and_shared_packages_stay_theirs(wheel: Path, tmp_path: Path) -> None:
    assert "Root-Is-Purelib: true" in metadata(wheel, "WHEEL")  # so unpacking is installing
    installed = tmp_path / "installed"
    zipfile.ZipFile(wheel).extractall(installed)
    project = tmp_path / "project"
    for name in ("api", "shared"):
        (project / name).mkdir(parents=True)
        (project / name / "__init__.py").write_text("WHO = 'the user'\n")

    # -S leaves out .pth files, and with them this checkout's editable install; the dependencies are named instead.
    path = os.pathsep.join([str(project), str(installed), sysconfig.get_path("purelib")])
    done = subprocess.run(
        [sys.executable, "-S", "-c", USERS_PROGRAM],
        cwd=project,
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
    )

    assert done.returncode == 0, done.stderr
    assert {Path(line).relative_to(installed).parts[0] for line in done.stdout.split("\n") if line} == {"outlast"}
