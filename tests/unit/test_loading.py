"""Finding the agents that are configured, and saying what is wrong with those that are not there."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from outlast.agent import Context, Request, Text
from outlast.shared.settings import Settings, SettingsError
from outlast.worker.agents.loading import loaded

SOURCE = """
import outlast.agent

async def generator(request, context):
    yield "a"

async def text(request, context):
    return "whole"

async def several(request, context):
    return ["a", outlast.agent.Text("b")]

async def nothing(request, context):
    return None

class Holder:
    inner = generator

def plain(request, context):
    return "no"

value = 3
"""


class Heard:
    """A stage that keeps what is said on it."""

    request = Request([])
    context = Context("resp_1", "t", "p", "x", 1, None)

    def __init__(self) -> None:
        self.heard: list[object] = []

    async def emit(self, emission: object) -> None:
        self.heard.append(emission)


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A module in the working directory."""
    name = f"agents_{tmp_path.name}".replace("-", "_")
    (tmp_path / f"{name}.py").write_text(SOURCE)
    (tmp_path / f"{name}_broken.py").write_text("raise RuntimeError('at import')")
    (tmp_path / f"{name}_needy.py").write_text("import a_module_that_is_not_there")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [path for path in sys.path if path])
    return name


@pytest.mark.parametrize(
    ("attribute", "emissions"),
    [
        ("generator", ["a"]),
        ("Holder.inner", ["a"]),
        ("text", ["whole"]),
        ("several", ["a", Text("b")]),
        ("nothing", []),
    ],
)
async def test_functions_of_several_forms_are_agents(module: str, attribute: str, emissions: list[object]) -> None:
    async with loaded({"x": f"{module}:{attribute}"}) as agents:
        stage = Heard()
        await agents["x"].execute(stage)  # type: ignore[arg-type]

    assert stage.heard == emissions


@pytest.mark.parametrize(
    ("target", "words"),
    [
        ("{m}:nobody", "has no attribute 'nobody'"),
        ("{m}:value", "is int, not an agent"),
        ("{m}:plain", "is function, not an agent"),
        ("{m}_broken:agent", "raised RuntimeError: at import"),
        ("{m}_needy:agent", "a_module_that_is_not_there"),
        ("no.such.module:agent", "there is no module 'no'"),
    ],
)
async def test_what_cannot_be_loaded_is_named_with_the_reason(module: str, target: str, words: str) -> None:
    with pytest.raises(SettingsError, match=words):
        async with loaded({"x": target.format(m=module)}):
            pass


def test_what_workers_load_before_they_fork_starts_no_thread() -> None:
    """A process that forks while it has threads may leave its children locks that nobody will open."""
    modules = ", ".join(Settings.model_fields["preload"].default)
    program = f"import threading, {modules}; print(threading.active_count())"

    assert subprocess.run([sys.executable, "-c", program], capture_output=True, text=True).stdout == "1\n"
