"""What is wrong with an agent is told with the file and the line that its author has to look at."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Generator
from pathlib import Path

import pytest

from outlast.shared.settings import SettingsError
from outlast.worker.agents.loading import loaded

WRONG = {
    "def agent(:\n    pass": r"raised SyntaxError: .*, at agent_x\.py:1 \(def agent\(:\)$",
    "import os\nimport langchian_x": r"No module named 'langchian_x', at agent_x\.py:2 \(import langchian_x\)$",
    "import os\nKEY = os.environ['A_KEY_THAT_IS_NOT_SET']": (
        r"raised KeyError: 'A_KEY_THAT_IS_NOT_SET', at agent_x\.py:2 \(KEY = os\.environ\['A_KEY_THAT_IS_NOT_SET'\]\)$"
    ),
    "import json\nVALUE = json.loads('no')": r"raised JSONDecodeError: .*, at agent_x\.py:2 \(VALUE = .*\)$",
    "import tools_x\nagent = tools_x.agent": (
        r"raised ZeroDivisionError: .*, at agent_x\.py:1 \(import tools_x\), tools_x\.py:4 \(made\(0\)\), "
        r"tools_x\.py:2 \(return 1 / number\)$"
    ),
    "import sys\nsys.exit('no key')": r"importing agent_x raised SystemExit: no key, at agent_x\.py:2 \(sys\..*\)$",
    "async def agnet(request, context):\n    yield ''": (
        r"agent_x has no attribute 'agent'; is 'agnet' meant\? \(.*agent_x\.py\)$"
    ),
    "\ndef agent(request, context):\n    return ''": r"is function, not an agent: .*, at agent_x\.py:2$",
    "def agent():\n    raise RuntimeError('no model')": (
        r"making it raised RuntimeError: no model, at agent_x\.py:2 \(raise RuntimeError\('no model'\)\)$"
    ),
    "def agent():\n    exit('no model')": r"making it raised SystemExit: no model, at agent_x\.py:2 \(exit\(.*\)\)$",
}
TOOLS = "def made(number):\n    return 1 / number\n\nmade(0)\n"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Generator[Path]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [path for path in sys.path if path])
    yield tmp_path
    for name in ("agent_x", "tools_x"):
        sys.modules.pop(name, None)


async def load(target: str) -> str:
    with pytest.raises(SettingsError) as raised:
        async with loaded({"mine": target}):
            pass
    return raised.value.message


@pytest.mark.parametrize(("source", "told"), WRONG.items())
async def test_its_file_and_line_are_told(folder: Path, source: str, told: str) -> None:
    (folder / "agent_x.py").write_text(source)
    (folder / "tools_x.py").write_text(TOOLS)

    message = await load("agent_x:agent")
    assert message.startswith("Agent mine")
    assert re.search(told, message), message


async def test_a_file_elsewhere_is_told_whole(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    elsewhere = tmp_path_factory.mktemp("elsewhere") / "agent_x.py"
    elsewhere.write_text("1 / 0")

    assert (await load(f"{elsewhere}:agent")).endswith(f", at {elsewhere}:1 (1 / 0)")


async def test_of_an_installed_agent_it_is_its_own_line(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    installed = folder / "lib/site-packages"
    installed.mkdir(parents=True)
    (installed / "agent_x.py").write_text("import tools_x")
    (installed / "tools_x.py").write_text(TOOLS)
    monkeypatch.syspath_prepend(installed)

    place = os.path.join("lib", "site-packages", "tools_x.py")
    assert (await load("agent_x:agent")).endswith(f", at {place}:2 (return 1 / number)")
