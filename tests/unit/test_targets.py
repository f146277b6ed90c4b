"""What OUTLAST_AGENTS can name beside modules: files, and the projects of LangGraph's users."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

import pytest

from outlast.shared.settings import SettingsError, load
from outlast.worker.agents import project, targets

AGENT = "async def agent(request, context):\n    yield NAME\n"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Generator[Path]:
    """A working folder whose modules are forgotten afterwards."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [path for path in sys.path if path])
    monkeypatch.setattr(os, "environ", os.environ.copy())
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        del sys.modules[name]


@pytest.fixture
def write(folder: Path) -> Callable[..., None]:
    """Writes files by their paths: text, or what is to be JSON."""

    def writing(files: dict[str, Any]) -> None:
        for path, content in files.items():
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_text(content if isinstance(content, str) else json.dumps(content))

    return writing


Write = Callable[[dict[str, Any]], None]


def name_of(target: str) -> str:
    """The NAME of the module that an agent comes from."""
    found: Any = targets.find("x", target)
    return found.__globals__["NAME"]


def test_a_file_finds_its_siblings(write: Write) -> None:
    write({"app/flow.py": f"from words_beside import NAME\n{AGENT}", "app/words_beside.py": "NAME = 'sibling'"})

    assert name_of("./app/flow.py:agent") == "sibling"


def test_a_file_of_a_package_is_imported_as_part_of_it(write: Write) -> None:
    write({
        "src/pack_one/__init__.py": "",
        "src/pack_one/words.py": "NAME = 'package'",
        "src/pack_one/inner/__init__.py": "",
        "src/pack_one/inner/flow.py": f"from ..words import NAME\nimport pack_one.words\n{AGENT}",
    })  # fmt: skip

    assert name_of("src/pack_one/inner/flow.py:agent") == "package"
    assert targets.find("x", "src/pack_one/inner/flow.py:agent").__module__ == "pack_one.inner.flow"


def test_files_of_one_name_are_two_modules(write: Write) -> None:
    write({f"{side}/twin_flow.py": f"NAME = '{side}'\n{AGENT}" for side in ("left", "right")})

    assert [name_of(f"./{side}/twin_flow.py:agent") for side in ("left", "right", "left")] == ["left", "right", "left"]


@pytest.mark.parametrize(
    ("target", "words"),
    [
        ("./gone.py:agent", r"there is no file ./gone.py"),
        ("./flow.js:agent", "not a file of Python"),
        ("./broken.py:agent", "importing .*broken.* raised RuntimeError: at import"),
        (
            "./needy.py:agent",
            "No module named 'a_module_that_is_not_there'.*not installed: a-package-that-is-not-there",
        ),
        ("./fine.py:nothing", "./fine.py has no attribute 'nothing'"),
    ],
)
def test_what_is_wrong_with_a_file_is_said(write: Write, target: str, words: str) -> None:
    write({
        "broken.py": "raise RuntimeError('at import')",
        "needy.py": "import a_module_that_is_not_there",
        "fine.py": "",
        "pyproject.toml": '[project]\ndependencies = ["pytest>=1", "a-package-that-is-not-there[x]>=2"]',
    })  # fmt: skip

    with pytest.raises(SettingsError, match=words):
        targets.find("x", target)


PROJECT = {
    "dependencies": [".", "./lib", "pytest"],
    "graphs": {
        "one": "./src/pack_two/flow.py:agent",
        "two": {"path": "pack_two.flow:agent", "description": "The same."},
    },
    "env": ".env",
}


def test_a_langgraph_json_is_all_its_graphs_with_what_they_need(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    write({
        "deploy/langgraph.json": PROJECT,
        "deploy/.env": "FROM_FILE=file\nKEPT=file\n",
        "deploy/lib/lib_beside.py": "NAME = 'lib'",
        "deploy/src/pack_two/__init__.py": "",
        "deploy/src/pack_two/flow.py": f"from lib_beside import NAME\n{AGENT}",
    })  # fmt: skip
    os.environ["KEPT"] = "environment"
    monkeypatch.setenv("OUTLAST_AGENTS", "./deploy/langgraph.json, other=pack:agent")

    agents = load().agents
    assert agents == {
        "one": "./deploy/langgraph.json:one",
        "two": "./deploy/langgraph.json:two",
        "other": "pack:agent",
    }
    assert [name_of(agents[name]) for name in ("one", "two")] == ["lib", "lib"]
    assert (os.environ["FROM_FILE"], os.environ["KEPT"]) == ("file", "environment")


def test_variables_may_stand_in_the_file_and_a_missing_file_of_them_does_no_harm(write: Write) -> None:
    graphs = {"graphs": {"a": "./a.py:agent"}}
    write({"one.json": {**graphs, "env": {"FROM_MAPPING": 1}}, "two.json": {**graphs, "env": ".gone"}})
    project.enter("one.json")
    project.enter("two.json")

    assert os.environ["FROM_MAPPING"] == "1"


@pytest.mark.parametrize(
    ("dependencies", "words"),
    [
        (["pytest", "not-there>=1", "other_not-there"], "packages that are not installed: not-there, other_not-there$"),
        (["./gone"], "depends on .*gone, which is not there"),
    ],
)
def test_what_a_project_needs_and_is_not_there_is_named(write: Write, dependencies: list[str], words: str) -> None:
    write({"langgraph.json": {"graphs": {"a": "./a.py:agent"}, "dependencies": dependencies}})

    with pytest.raises(SettingsError, match=words):
        targets.find("a", "langgraph.json:a")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("no json", "langgraph.json is not JSON"),
        ({"graphs": {}}, "langgraph.json names no graphs"),
        ([], "langgraph.json names no graphs"),
        (None, "langgraph.json: No such file"),
    ],
)
def test_a_file_without_graphs_keeps_a_process_from_starting(
    write: Write, monkeypatch: pytest.MonkeyPatch, content: Any, words: str
) -> None:
    if content is not None:
        write({"langgraph.json": content})
    monkeypatch.setenv("OUTLAST_AGENTS", "langgraph.json")

    with pytest.raises(SettingsError, match=words):
        load()


def test_a_graph_without_a_path_is_named(write: Write) -> None:
    write({"langgraph.json": {"graphs": {"a": {"description": "No path."}}}})

    with pytest.raises(SettingsError, match=r"Agent a: langgraph\.json: the graph a has no path"):
        targets.find("a", "langgraph.json:a")
