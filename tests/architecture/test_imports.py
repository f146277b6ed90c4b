"""The rules that import-linter cannot say, and the proof that each of its contracts breaks when it should."""

from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PARTS = ("api", "infra", "shared", "worker")
SOURCES = sorted(file for part in (*PARTS, "examples", "bench") for file in (ROOT / part).rglob("*.py"))
TESTS = sorted((ROOT / "tests").rglob("*.py"))

LONGEST_MODULE = 300
LONGEST_FUNCTION = 60
NAMELESS = {"base", "common", "handler", "handlers", "helper", "helpers", "manager", "misc", "util", "utils"}
DOOR = "shared/outlast/shared/connections/database.py"
POLLING = ROOT / "tests/support/waiting.py"  # the one place that looks again a little later, until a deadline


def name_of(file: Path) -> str:
    return file.relative_to(ROOT).as_posix()


def tree_of(file: Path) -> ast.Module:
    return ast.parse(file.read_text("utf-8"), str(file))


def calls(tree: ast.AST) -> Iterator[ast.Call]:
    return (node for node in ast.walk(tree) if isinstance(node, ast.Call))


def opens_a_connection(call: ast.Call) -> bool:
    """``psycopg.connect``, ``AsyncConnection.connect``, a pool, or a framework's own way from an address."""
    called = re.sub(r"\[.*\]", "", ast.unparse(call.func))
    return bool(re.search(r"(^|\.)((psycopg|\w*Connection)\.connect|\w*ConnectionPool|from_conn_string)$", called))


def waits_a_fixed_time(call: ast.Call) -> bool:
    """``sleep(0)`` only gives way to others; a number is a guess at how long something takes."""
    called = ast.unparse(call.func).split(".")
    seconds = call.args[0] if call.args else None
    return called[-1] == "sleep" and isinstance(seconds, ast.Constant) and seconds.value != 0


@pytest.mark.parametrize(
    "text",
    [
        "psycopg.connect(url)",
        "await psycopg.AsyncConnection.connect(url)",
        "AsyncConnection[TupleRow].connect(url)",
        "psycopg_pool.AsyncConnectionPool(url)",
        "AsyncNullConnectionPool[Connection](conninfo=url)",
        "AsyncPostgresSaver.from_conn_string(url)",
    ],
)
def test_an_opened_connection_is_recognised(text: str) -> None:
    assert any(map(opens_a_connection, calls(ast.parse(text))))


@pytest.mark.parametrize(
    "text", ["signals.worker_ready.connect(f)", "socket.connect(a)", "pool.connection()", "Connection(x)"]
)
def test_other_connects_are_not_mistaken_for_one(text: str) -> None:
    assert not any(map(opens_a_connection, calls(ast.parse(text))))


def test_only_the_door_opens_connections() -> None:
    openers = {name_of(file) for file in SOURCES if any(map(opens_a_connection, calls(tree_of(file))))}
    assert openers == {DOOR}


def writes_to_a_terminal(node: ast.AST) -> bool:
    """``print``, ``typer.echo`` and its like, and the streams, unless only ``isatty`` or a number is asked of them."""
    match node:
        case ast.Call(func=ast.Name(id="print")):
            return True
        case ast.Attribute(value=ast.Name(id="typer" | "click"), attr="echo" | "secho" | "echo_via_pager" | "style"):
            return True
        case ast.Attribute(value=ast.Attribute(value=ast.Name(id="sys"), attr="stdout" | "stderr"), attr=attr):
            return attr not in ("isatty", "fileno")
        case _:
            return False


@pytest.mark.parametrize(
    "text", ["print(x)", "typer.echo(x)", "typer.secho", "sys.stdout.write(x)", "sys.stderr.buffer", "click.echo(x)"]
)
def test_what_writes_to_a_terminal_is_recognised(text: str) -> None:
    assert any(map(writes_to_a_terminal, ast.walk(ast.parse(text))))
    assert not any(map(writes_to_a_terminal, ast.walk(ast.parse("typer.confirm(x); sys.stdout.isatty(); echo(x)"))))


def test_commands_write_to_a_terminal_through_one_module() -> None:
    infra = [file for file in SOURCES if file.is_relative_to(ROOT / "infra")]
    writers = {name_of(file) for file in infra if any(map(writes_to_a_terminal, ast.walk(tree_of(file))))}
    assert writers == {"infra/outlast/infra/cli/terminal.py"}  # and the demo's screen, which is given its stream


def test_the_domain_imports_the_standard_library_and_itself() -> None:
    strangers = []
    for file in sorted((ROOT / "shared/outlast/shared/domain").rglob("*.py")):
        for node in ast.walk(tree_of(file)):
            if isinstance(node, ast.Import):
                strangers += [
                    (file.name, a.name) for a in node.names if a.name.split(".")[0] not in sys.stdlib_module_names
                ]
            elif isinstance(node, ast.ImportFrom) and node.level != 1:
                top = (node.module or "").split(".")[0]
                strangers += [] if node.level == 0 and top in sys.stdlib_module_names else [(file.name, node.module)]
    assert strangers == []


def test_no_module_is_longer_than_can_be_held_in_mind() -> None:
    lengths = {name_of(file): len(file.read_text("utf-8").splitlines()) for file in SOURCES}
    assert {name: lines for name, lines in lengths.items() if lines > LONGEST_MODULE} == {}


def test_no_function_is_longer_than_a_screen() -> None:
    long = {
        f"{name_of(file)}:{node.lineno} {node.name}": lines
        for file in SOURCES
        for node in ast.walk(tree_of(file))
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
        and (lines := (node.end_lineno or node.lineno) - node.lineno + 1) > LONGEST_FUNCTION
    }
    assert long == {}


def test_every_module_has_a_name_that_says_something() -> None:
    files = [file for file in SOURCES + TESTS if file.stem in NAMELESS or NAMELESS & set(file.relative_to(ROOT).parts)]
    assert [name_of(file) for file in files] == []


def test_no_test_waits_a_fixed_time() -> None:
    assert any(map(waits_a_fixed_time, calls(ast.parse("await asyncio.sleep(0.5)"))))
    tests = [file for file in TESTS if file != POLLING]
    waiting = [
        f"{name_of(file)}:{call.lineno}" for file in tests for call in calls(tree_of(file)) if waits_a_fixed_time(call)
    ]
    assert waiting == []


EVERY_MODULE_OF_THE_API = """
import importlib, pkgutil, sys
import outlast.api
for module in pkgutil.walk_packages(outlast.api.__path__, "outlast.api."):
    importlib.import_module(module.name)
print(*sys.modules)
"""


def test_the_api_loads_no_agent_framework_and_no_celery_worker() -> None:
    done = subprocess.run([sys.executable, "-c", EVERY_MODULE_OF_THE_API], capture_output=True, text=True, check=True)
    loaded = set(done.stdout.split())
    assert "outlast.api.app" in loaded
    unwanted = (
        "agents",
        "celery.apps",
        "celery.worker",
        "langchain_core",
        "langgraph",
        "langsmith",
        "openai",
        "outlast.worker",
    )
    assert sorted(name for name in loaded if name.startswith(unwanted)) == []


# A line in a module, and the contract it breaks.
VIOLATIONS = {
    "infra runs api and worker; they never meet": [
        ("api/outlast/api/__init__.py", "import outlast.worker"),
        ("worker/outlast/worker/__init__.py", "import outlast.api"),
        ("shared/outlast/shared/__init__.py", "import outlast.api"),
        ("worker/outlast/worker/__init__.py", "import outlast.infra"),
    ],
    "The layers inside shared": [
        ("shared/outlast/shared/connections/database.py", "import outlast.shared.store.runs"),
        ("shared/outlast/shared/settings/settings.py", "import outlast.shared.connections"),
        ("shared/outlast/shared/newcomer.py", ""),
    ],
    "domain is pure": [
        ("shared/outlast/shared/domain/runs.py", "import orjson"),
        ("shared/outlast/shared/domain/runs.py", "import psycopg"),
    ],
    "What users import depends on nothing": [("shared/outlast/agent.py", "import pydantic")],
    "psycopg behind the door, in the store and in the notifier": [
        ("api/outlast/api/__init__.py", "import psycopg"),
        ("worker/outlast/worker/runtime.py", "from psycopg_pool import AsyncConnectionPool"),
        ("shared/outlast/shared/logs.py", "import psycopg"),
        ("infra/outlast/infra/migrate.py", "import psycopg_pool"),
    ],
    "redis behind its door": [
        ("api/outlast/api/__init__.py", "import redis"),
        ("shared/outlast/shared/hints.py", "from redis.asyncio import Redis"),
        ("worker/outlast/worker/runtime.py", "import redis.exceptions"),
    ],
    "Celery in the worker's app and pool and in the doorbell": [
        ("api/outlast/api/__init__.py", "import celery"),
        ("worker/outlast/worker/runtime.py", "import kombu"),
        ("shared/outlast/shared/settings/settings.py", "import celery"),
    ],
    "HTTP serving in api": [
        ("worker/outlast/worker/runtime.py", "import fastapi"),
        ("infra/outlast/infra/__init__.py", "import uvicorn"),
    ],
    "databricks-sdk in one module, which is loaded by the first login to Lakebase": [
        ("api/outlast/api/__init__.py", "import databricks.sdk"),
        ("shared/outlast/shared/lakebase/lakebase.py", "from databricks.sdk import WorkspaceClient"),
    ],
    "OpenTelemetry in one module, which is loaded only where traces are wanted": [
        ("api/outlast/api/__init__.py", "import opentelemetry.trace"),
        ("shared/outlast/shared/tracing.py", "import opentelemetry"),
        ("worker/outlast/worker/runtime.py", "from opentelemetry import trace"),
    ],
    "MLflow in one module of the worker, loaded only where it is wanted": [
        ("api/outlast/api/__init__.py", "import mlflow"),
        ("worker/outlast/worker/recording.py", "from mlflow.entities import SpanType"),
        ("shared/outlast/shared/mlflow_traces.py", "import mlflow.tracing"),
    ],
    "Agent frameworks in their adapters": [
        ("api/outlast/api/__init__.py", "import langgraph.graph"),
        ("worker/outlast/worker/runtime.py", "from langchain_core.messages import AIMessage"),
        ("shared/outlast/shared/logs.py", "import agents"),
    ],
}


def broken_contracts(checkout: Path) -> set[str]:
    """The contracts that import-linter calls broken in a copy of the four parts."""
    # -S: this checkout's own editable install must not be looked at beside the copy.
    path = os.pathsep.join([*(str(checkout / part) for part in PARTS), sysconfig.get_path("purelib")])
    done = subprocess.run(
        [
            sys.executable,
            "-S",
            "-c",
            "from importlinter.cli import lint_imports_command as run; run()",
            "--no-cache",
            "--no-logo",
        ],
        cwd=checkout,
        env={**os.environ, "PYTHONPATH": path, "COLUMNS": "300"},
        capture_output=True,
        text=True,
    )
    assert "Contracts: " in done.stdout, done.stdout + done.stderr
    return set(re.findall(r"^(.+) BROKEN", done.stdout, re.MULTILINE))


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    copy = tmp_path_factory.mktemp("contracts")
    shutil.copy(ROOT / "pyproject.toml", copy)
    for part in PARTS:
        shutil.copytree(ROOT / part / "outlast", copy / part / "outlast", ignore=shutil.ignore_patterns("__pycache__"))
    return copy


@pytest.mark.parametrize(
    ("contract", "file", "line"),
    [(contract, file, line) for contract, plants in VIOLATIONS.items() for file, line in plants],
)
def test_a_violation_breaks_its_contract(contract: str, file: str, line: str, checkout: Path) -> None:
    planted = checkout / file
    before = planted.read_text("utf-8") if planted.exists() else None
    planted.write_text(f"{before or ''}\n{line}\n", "utf-8")
    try:
        assert contract in broken_contracts(checkout)
    finally:
        planted.unlink() if before is None else planted.write_text(before, "utf-8")


def test_every_contract_holds_here_and_is_tried_above(checkout: Path) -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]["importlinter"]
    assert {contract["name"] for contract in settings["contracts"]} == set(VIOLATIONS)
    assert broken_contracts(checkout) == set()
