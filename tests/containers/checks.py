"""What must be true of an image before anything is started from it."""

from __future__ import annotations

import csv
import json
import re
import subprocess
from pathlib import Path

from tests.containers.images import Refused

FRAMEWORKS = re.compile(
    r"^(langgraph|langchain|langsmith|openai|autogen|crewai|llama-index|databricks-langchain|databricks-openai|deepagents)"
)
SERVING = re.compile(r"^(fastapi|starlette|uvicorn)")
# langgraph-checkpoint-postgres makes LangGraph's tables; it needs these.
FOR_TABLES = {
    "langgraph-checkpoint",
    "langgraph-checkpoint-postgres",
    "langchain-core",
    "langchain-protocol",
    "langsmith",
}
_PIN = re.compile(r"^([a-z0-9][a-z0-9.-]*)==([^ \\]+)", re.M)
_WHO = """
import importlib.util as u, json, sys
import outlast.infra.cli, outlast.shared.settings as s
foreign = [name for name in ("tests", "bench", "pytest", "hatchling", "pip") if u.find_spec(name)]
print(json.dumps({"settings": s.__file__, "path": sys.path, "foreign": foreign}))
"""


def has_only_its_lock(target: str, environment: Path, lock: Path) -> str:
    """Every package is one of the lock, in its version, and was unpacked from a wheel; nothing of the other side."""
    installed = _installed(environment)
    pins = dict(_PIN.findall(lock.read_text("utf-8")))
    others = {name: version for name, version in installed.items() if name != "outlast" and pins.get(name) != version}
    _expect(not others, f"{target} has packages that {lock.name} has not: {others}")
    frameworks = {name for name in installed if FRAMEWORKS.match(name)}
    serving = {name for name in installed if SERVING.match(name)}
    match target:
        case "api":
            _expect(not frameworks, f"api has agent frameworks: {frameworks}")
        case "migrate":
            _expect(not serving and frameworks <= FOR_TABLES, f"migrate has {serving | frameworks - FOR_TABLES}")
        case _:
            _expect(not serving and "langgraph" in frameworks, f"{target} has {serving or 'no langgraph'}")
    strangers = _binaries(environment) - _recorded(environment)
    _expect(not strangers, f"{target} has binaries that no wheel brought: {strangers}")
    return f"{len(installed)} packages, {_megabytes(environment)} MB"


def sees_no_checkout(environment: Path, checkout: Path, env: dict[str, str], cwd: Path) -> None:
    done = subprocess.run(
        [str(environment / "bin/python"), "-c", _WHO], env=env, cwd=cwd, capture_output=True, text=True
    )
    _expect(done.returncode == 0, done.stderr)
    seen = json.loads(done.stdout)
    own = str(environment.resolve())
    _expect(str(Path(seen["settings"]).resolve()).startswith(own), f"outlast comes from {seen['settings']}")
    inside = [path for path in seen["path"] if Path(path).resolve().is_relative_to(checkout)]
    _expect(not inside and not seen["foreign"], f"{inside} and {seen['foreign']} can be imported")


def _installed(environment: Path) -> dict[str, str]:
    found = dict[str, str]()
    for info in environment.glob("lib/python3*/site-packages/*.dist-info"):
        name, _, version = info.name.removesuffix(".dist-info").rpartition("-")
        found[re.sub(r"[-_.]+", "-", name).lower()] = version
    return found


def _binaries(environment: Path) -> set[Path]:
    return {file.resolve() for file in environment.resolve().glob("lib/python3*/site-packages/**/*.so*")}


def _recorded(environment: Path) -> set[Path]:
    recorded = set[Path]()
    for record in environment.resolve().glob("lib/python3*/site-packages/*.dist-info/RECORD"):
        with record.open(newline="") as lines:
            recorded |= {(record.parents[1] / row[0]).resolve() for row in csv.reader(lines)}
    return recorded


def _megabytes(environment: Path) -> int:
    return sum(file.stat().st_size for file in environment.resolve().rglob("*") if not file.is_symlink()) // 2**20


def _expect(holds: bool, otherwise: str) -> None:
    if not holds:
        raise Refused(otherwise)
