"""Which model the assistant uses, and that a wrong environment is refused rather than answered without a model."""

from __future__ import annotations

import sys

import pytest

from examples.assistant.settings import Databricks, Endpoint, Offline, Settings
from outlast.agent import AgentError

KEY = "sk-a-key-that-nobody-may-see"


@pytest.mark.parametrize(
    ("environment", "model", "described"),
    [
        ({}, Offline(), "offline lookup, no language model"),
        ({"OPENAI_API_KEY": "", "OPENAI_MODEL": ""}, Offline(), "offline lookup, no language model"),
        (
            {"OPENAI_API_KEY": KEY},
            Endpoint("gpt-5-mini", "https://api.openai.com/v1", KEY),
            "gpt-5-mini at api.openai.com",
        ),
        (
            {"OPENAI_API_KEY": KEY, "OPENAI_MODEL": "large"},
            Endpoint("large", "https://api.openai.com/v1", KEY),
            "large at api.openai.com",
        ),
        (
            {"OPENAI_BASE_URL": "http://localhost:11434/v1", "OPENAI_MODEL": "qwen3"},
            Endpoint("qwen3", "http://localhost:11434/v1", "none"),
            "qwen3 at localhost:11434",
        ),
        ({"DATABRICKS_MODEL": "large", "OPENAI_API_KEY": KEY}, Databricks("large"), "large on Databricks"),
    ],
)
def test_the_environment_names_the_model(environment: dict[str, str], model: object, described: str) -> None:
    settings = Settings.of(environment)
    assert settings.model == model
    assert str(settings.model).startswith(described)
    assert KEY not in repr(settings) + str(settings)


@pytest.mark.parametrize(
    ("environment", "reason"),
    [
        ({"OPENAI_MODEL": "large"}, "OPENAI_MODEL needs OPENAI_API_KEY"),
        ({"OPENAI_BASE_URL": "http://localhost/v1"}, "OPENAI_BASE_URL needs OPENAI_MODEL"),
        ({"OPENAI_BASE_URL": "localhost:11434", "OPENAI_MODEL": "x"}, "must be like https://host/v1"),
        ({"OPENAI_BASE_URL": "http://", "OPENAI_MODEL": "x"}, "must be like https://host/v1"),
        ({"OPENAI_BASE_URL": f"http://me:{KEY}@host/v1", "OPENAI_MODEL": "x"}, "neither a password nor a query"),
        ({"OPENAI_BASE_URL": f"http://host/v1?key={KEY}", "OPENAI_MODEL": "x"}, "neither a password nor a query"),
        ({"ASSISTANT_PACE_SECONDS": "fast"}, "ASSISTANT_PACE_SECONDS must be 0 to 60"),
        ({"ASSISTANT_PACE_SECONDS": "-1"}, "ASSISTANT_PACE_SECONDS must be 0 to 60"),
        ({"ASSISTANT_PACE_SECONDS": "nan"}, "ASSISTANT_PACE_SECONDS must be 0 to 60"),
        ({"ASSISTANT_PACE_SECONDS": "61"}, "ASSISTANT_PACE_SECONDS must be 0 to 60"),
        ({"ASSISTANT_TIMEOUT_SECONDS": "0"}, "ASSISTANT_TIMEOUT_SECONDS must be 0.1 to 3600"),
        ({"ASSISTANT_RETRIES": "inf"}, "ASSISTANT_RETRIES must be 0 to 100"),
    ],
)
def test_a_wrong_environment_is_refused_with_the_name_of_the_variable(environment: dict[str, str], reason: str) -> None:
    with pytest.raises(AgentError, match=reason) as refused:
        Settings.of(environment)
    assert KEY not in str(refused.value)


@pytest.mark.parametrize(
    ("environment", "missing", "said"),
    [
        (
            {"OPENAI_API_KEY": KEY},
            "langchain_openai",
            "OPENAI_API_KEY is set, which needs langchain-openai: pip install",
        ),
        (
            {"OPENAI_BASE_URL": "http://host/v1", "OPENAI_MODEL": "x"},
            "langchain_openai",
            r"OPENAI_BASE_URL is set, which needs langchain-openai: pip install 'outlast\[openai\]'",
        ),
        ({"DATABRICKS_MODEL": "x"}, "databricks", r"needs databricks-sdk: pip install 'outlast\[databricks\]'"),
        ({"DATABRICKS_MODEL": "x"}, "databricks.sdk", r"needs databricks-sdk: pip install 'outlast\[databricks\]'"),
        ({"DATABRICKS_MODEL": "x"}, "langchain_openai", r"needs langchain-openai: pip install 'outlast\[databricks\]'"),
    ],
)
def test_a_missing_package_is_named_with_its_extra(
    monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], missing: str, said: str
) -> None:
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(AgentError, match=said):
        Settings.of(environment)
