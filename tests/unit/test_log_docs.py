"""docs/logs.md lists every event that the code logs, with its levels and its fields."""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from pathlib import Path

ROOT = Path(__file__).parents[2]
LEVEL = {"exception": "error"}
Told = dict[str, tuple[set[str], set[str]]]
"""The levels and the fields of each event."""


def logged() -> Told:
    found: Told = defaultdict(lambda: (set(), set()))
    for part in ("api", "worker", "shared", "infra"):
        for file in (ROOT / part).rglob("*.py"):
            for call in ast.walk(ast.parse(file.read_text("utf-8"))):
                match call:
                    case ast.Call(func=ast.Attribute(value=ast.Name(id="log"), attr=method)):
                        [name] = call.args  # the fields are named
                        where = f"{file}:{call.lineno}: the name is not a literal"
                        assert isinstance(name, ast.Constant) and isinstance(name.value, str), where
                        levels, fields = found[name.value]
                        levels.add(LEVEL.get(method, method))
                        fields.update("traceback" if k.arg == "exc_info" else str(k.arg) for k in call.keywords)
                        fields.update({"traceback"} if method == "exception" else ())
    return dict(found)


def documented() -> Told:
    page = (ROOT / "docs/logs.md").read_text("utf-8")
    rows = re.findall(r"^\| `([^`]+)` \| ([a-z, ]+) \| (.*?)\| (\S.*) \|$", page, re.MULTILINE)
    assert [name for name, *_ in rows] == sorted(name for name, *_ in rows)
    return {name: (set(levels.split(", ")), set(re.findall(r"`(\w+)`", fields))) for name, levels, fields, _ in rows}


def test_the_page_lists_what_is_logged_and_nothing_else() -> None:
    code, page = logged(), documented()
    assert page == code
    assert len(page) > 40


def test_names_are_dotted() -> None:
    assert [name for name in logged() if not re.fullmatch(r"[a-z]+(\.[a-z_]+)+", name)] == []
