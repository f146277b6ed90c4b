"""docs/configuration.md names every setting, with its variable, its key in outlast.toml and its default."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from pydantic import AliasChoices
from pydantic.fields import FieldInfo

from outlast.shared.settings import CONFIG_FILE, Settings, load

PAGE = Path(__file__).parents[2] / "docs" / "configuration.md"


def rows() -> dict[str, tuple[str, str, str]]:
    """The tables' rows by their key in outlast.toml: the variables, the default and the meaning."""
    cells = [
        re.split(r"\s*\|\s*", line.strip("| \n")) for line in PAGE.read_text().splitlines() if line.startswith("| `")
    ]
    return {key.strip("`"): (variables, default, meaning) for variables, key, default, meaning in cells}


def names(field: str, info: FieldInfo) -> tuple[list[str], str]:
    """The variables that set a field, and its key in outlast.toml."""
    alias = info.validation_alias
    if not isinstance(alias, AliasChoices):
        return [f"OUTLAST_{field.upper()}"], field
    choices = [str(choice) for choice in alias.choices]
    return [choice for choice in choices if choice.isupper()], choices[-1]


def written(default: Any) -> str:
    """A default as the page writes it."""
    match default:
        case None:
            return "unset"
        case {"*": of_each}:
            return written(of_each)
        case {} | ():
            return "none"
        case bool():
            return f"`{str(default).lower()}`"
        case float():
            return f"`{default:g}`"
        case tuple():
            return f"`{','.join(default)}`"
        case _:
            return f"`{default}`"


@pytest.mark.parametrize("field", Settings.model_fields)
def test_every_setting_is_on_the_page_with_its_names_and_its_default(field: str) -> None:
    info = Settings.model_fields[field]
    variables, key = names(field, info)

    told_variables, told_default, meaning = rows()[key]

    assert told_variables == " or ".join(f"`{variable}`" for variable in variables)
    assert told_default == written(info.get_default(call_default_factory=True))
    assert meaning


def test_the_page_has_no_setting_that_does_not_exist() -> None:
    assert sorted(rows()) == sorted(names(field, info)[1] for field, info in Settings.model_fields.items())


@pytest.mark.parametrize("field", Settings.model_fields)
def test_a_setting_is_read_from_its_key_in_the_file(
    field: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = {"agents": '{ mine = "agent:agent" }', "queues": '["slow"]', "auth": '"none"', "tail": '"poll"'}
    values["lakebase_sslmode"] = '"verify-full"'
    values["token_key"] = f'"{"k" * 32}"'
    values |= {
        "strict_models": "true",
        "strict_parameters": "true",
        "otel": "true",
        "mlflow": "true",
        "log_format": '"json"',
        "lease_seconds": "60",
        "beat_seconds": "1",
        "sweep_seconds": "1",
    }
    unset = ("children", "health_port", "isolated_children", "max_queued_per_principal", "max_running_per_principal")
    values |= dict.fromkeys((*unset, "expire_queued_after_seconds", "task_timeout_seconds"), "7")
    values |= {
        "graph_context": '{ mine = { tone = "warm" } }',
        "graph_tools": '{ mine = ["mcp"] }',
        "max_running_per_agent": "{ mine = 7 }",
        "recursion_limit": "7",
        "max_retries": "7",
        "durability": '"exit"',
        "isolation": '"process"',
        "event_loop": '"asyncio"',
        "multitask_strategy": '"reject"',
        "redis_url": '"redis://mine:6379/0"',
        "self_fence_seconds": "4",
    }
    info = Settings.model_fields[field]
    default = info.get_default(call_default_factory=True)
    value = values.get(field) or ("7" if isinstance(default, int | float) else '"other"')
    for variable in names(field, info)[0]:
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.chdir(tmp_path)
    (tmp_path / CONFIG_FILE).write_text(f"{names(field, info)[1]} = {value}\n")

    assert getattr(load(), field) != default


def test_the_example_file_on_the_page_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    example = re.search(r"```toml\n(.*?)```", PAGE.read_text(), re.DOTALL)
    assert example is not None
    for variable in ("TASK_TIMEOUT_SECONDS", "OUTLAST_QUEUES", "OUTLAST_AGENTS"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.chdir(tmp_path)
    (tmp_path / CONFIG_FILE).write_text(example[1])

    settings = load()

    assert (settings.task_timeout_seconds, settings.queues, settings.agents) == (
        {"*": 600},
        ("default",),
        {"mine": "agent:agent"},
    )
