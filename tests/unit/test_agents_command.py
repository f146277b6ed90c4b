"""`outlast agents`: what each agent is, what it takes, or what is wrong with it."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from outlast.infra.cli import app

SOURCE = """
from dataclasses import dataclass
from typing import TypedDict
from langgraph.func import entrypoint
from langgraph.graph import START, MessagesState, StateGraph

@dataclass
class Mood:
    tone: str = "plain"
    name: str = "x"

class Question(TypedDict):
    question: str
    answer: str

class Unusual(TypedDict):
    given: str
    made: str

def made(state, **schemas):
    return StateGraph(state, **schemas).add_node("node", lambda state: {}).add_edge(START, "node").compile()

talking, asking, unusual = made(MessagesState, context_schema=Mood), made(Question), made(Unusual)

@entrypoint()
def working(topic: str) -> str:
    return topic

async def plain(request, context):
    yield request.text
"""


@pytest.fixture
def agents(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of a module with one agent of each kind."""
    name = f"kinds_{tmp_path.name}".replace("-", "_")
    (tmp_path / f"{name}.py").write_text(SOURCE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [path for path in sys.path if path])
    kinds = ("talking", "asking", "working", "plain", "unusual")
    monkeypatch.setenv("OUTLAST_AGENTS", ",".join(f"{kind}=./{name}.py:{kind}" for kind in kinds))
    return name


def test_each_agent_is_told_with_what_it_takes_or_what_is_wrong_with_it(agents: str) -> None:
    seen = CliRunner().invoke(app, ["agents"])
    lines = {line.split()[0]: line for line in seen.stdout.splitlines()}

    assert lines["talking"].endswith("default  graph: messages; context: tone, name")
    assert lines["asking"].endswith("ok       graph: question -> answer")
    assert lines["working"].endswith("ok       entrypoint: text -> what it returns")
    assert lines["plain"].endswith("ok       function")
    assert "takes given, made and gives given, made" in lines["unusual"]
    assert seen.exit_code == 1


def test_fields_that_are_set_are_the_ones_it_takes(agents: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OUTLAST_AGENTS", f"unusual=./{agents}.py:unusual")
    monkeypatch.setenv("OUTLAST_GRAPH_INPUT", "unusual=given")
    monkeypatch.setenv("OUTLAST_GRAPH_OUTPUT", "made")

    assert CliRunner().invoke(app, ["agents"]).stdout.rstrip().endswith("graph: given -> made")
    assert json.loads(CliRunner().invoke(app, ["agents", "--json"]).stdout) == {"unusual": None}


def test_code_that_patches_the_loop_is_told_the_setting_that_helps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = f"patching_{tmp_path.name}".replace("-", "_")
    (tmp_path / f"{name}.py").write_text(
        "import asyncio\n"
        "if not isinstance(loop := asyncio.get_running_loop(), asyncio.BaseEventLoop):\n"
        "    raise ValueError('Can\\'t patch loop of type %s' % type(loop))\n"  # as nest_asyncio does
        "async def agent(request, context):\n"
        "    yield 'x'\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [path for path in sys.path if path])
    monkeypatch.setenv("OUTLAST_AGENTS", f"agent=./{name}.py:agent")

    refused = CliRunner().invoke(app, ["agents"])
    monkeypatch.setenv("OUTLAST_EVENT_LOOP", "asyncio")

    assert refused.exit_code == 1 and "OUTLAST_EVENT_LOOP=asyncio" in refused.stdout
    assert CliRunner().invoke(app, ["agents"]).exit_code == 0
