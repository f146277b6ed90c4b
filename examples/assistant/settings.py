"""What the environment asks of the assistant. Loads nothing, so that the command line may ask as well."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.util import find_spec
from urllib.parse import urlsplit

from outlast.agent import AgentError

__all__ = ["Databricks", "Endpoint", "Offline", "Settings"]

OPENAI = "https://api.openai.com/v1"
OPENAI_MODEL = "gpt-5-mini"


@dataclass(frozen=True, slots=True)
class Offline:
    """No language model: rules (`LookupModel`)."""

    def __str__(self) -> str:
        return "offline lookup, no language model (OPENAI_API_KEY, OPENAI_BASE_URL or DATABRICKS_MODEL names one)"


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A model behind an OpenAI-compatible ``/chat/completions``."""

    model: str
    base_url: str
    api_key: str = field(repr=False)

    def __str__(self) -> str:
        return f"{self.model} at {urlsplit(self.base_url).netloc}"


@dataclass(frozen=True, slots=True)
class Databricks:
    """A Databricks model serving endpoint; databricks-sdk finds the workspace and the credentials."""

    model: str

    def __str__(self) -> str:
        return f"{self.model} on Databricks"


@dataclass(frozen=True, slots=True)
class Settings:
    model: Offline | Endpoint | Databricks
    pace_seconds: float
    """How long the offline model rests after each piece of its answer; 0 is not at all."""
    timeout_seconds: float
    """How long a language model may say nothing."""
    retries: int
    """How often a request is repeated that a language model's endpoint refused for now or did not answer."""

    @classmethod
    def of(cls, environment: Mapping[str, str]) -> Settings:
        """Raises AgentError with the name of the variable that is wrong, or of the extra that is missing."""
        return cls(
            model=_model(environment),
            pace_seconds=_number(environment, "ASSISTANT_PACE_SECONDS", 0.01, 0, 60),
            timeout_seconds=_number(environment, "ASSISTANT_TIMEOUT_SECONDS", 120, 0.1, 3_600),
            retries=int(_number(environment, "ASSISTANT_RETRIES", 2, 0, 100)),
        )


def _model(environment: Mapping[str, str]) -> Offline | Endpoint | Databricks:
    """Never the offline model when anything names another: somebody would take its answers for that one's."""
    if name := environment.get("DATABRICKS_MODEL"):
        _need("DATABRICKS_MODEL", "databricks", "databricks.sdk", "langchain_openai")
        return Databricks(name)
    key, url, name = (environment.get(f"OPENAI_{each}", "") for each in ("API_KEY", "BASE_URL", "MODEL"))
    if not (key or url):
        if name:
            raise AgentError("OPENAI_MODEL needs OPENAI_API_KEY, or OPENAI_BASE_URL for an endpoint without keys")
        return Offline()
    _need("OPENAI_BASE_URL" if url else "OPENAI_API_KEY", "openai", "langchain_openai")
    if url:
        _refuse_strange(url)
        if not name:
            raise AgentError("OPENAI_BASE_URL needs OPENAI_MODEL: the name of a model that it serves")
    return Endpoint(name or OPENAI_MODEL, url or OPENAI, key or "none")


def _need(variable: str, extra: str, *packages: str) -> None:
    for package in packages:
        parent, _, _ = package.rpartition(".")
        if (parent and find_spec(parent) is None) or find_spec(package) is None:
            distribution = package.replace("_", "-").replace(".", "-")
            raise AgentError(f"{variable} is set, which needs {distribution}: pip install 'outlast[{extra}]'")


def _refuse_strange(url: str) -> None:
    """A password in the address would be shown wherever the address is."""
    parts = urlsplit(url)
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise AgentError("OPENAI_BASE_URL must be like https://host/v1")
    if "@" in parts.netloc or parts.query:
        raise AgentError("OPENAI_BASE_URL must hold neither a password nor a query: the key is OPENAI_API_KEY's")


def _number(environment: Mapping[str, str], name: str, default: float, least: float, most: float) -> float:
    given = environment.get(name) or str(default)
    try:
        value = float(given)
    except ValueError:
        value = math.nan
    if not least <= value <= most:
        raise AgentError(f"{name} must be {least:g} to {most:g}, not {given!r}")
    return value
