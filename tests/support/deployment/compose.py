"""docker-compose.yml with its variables filled in, as far as our file uses the format."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import yaml

COMPOSE = "docker-compose.yml"
Service = dict[str, Any]
LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # ten times as fast, where it was built
_VARIABLE = re.compile(r"\$(?:(\$)|\{(\w+)(?::-([^}]*))?\}|(.?))")


def read(text: str, variables: Mapping[str, str] | None = None) -> dict[str, Any]:
    """``variables`` is what .env says. Raises ValueError for a ``$`` that compose would not understand."""
    return _filled(yaml.load(text, LOADER), variables or {})


def variables_of(text: str) -> dict[str, str]:
    """The variables that .env may set, with their defaults."""
    return {name: default for dollar, name, default, _ in _VARIABLE.findall(text) if not dollar and name}


def seconds(duration: str) -> float:
    """As in 90s, 1m30s, 2h. Raises ValueError."""
    parts = re.findall(r"(\d+(?:\.\d+)?)(h|ms|m|s)", duration)
    if "".join(number + unit for number, unit in parts) != duration or not parts:
        raise ValueError(f"no duration: {duration}")
    return sum(float(number) * {"h": 3600, "m": 60, "s": 1, "ms": 0.001}[unit] for number, unit in parts)


def size(text: str) -> int:
    """Bytes, as in 64M, 1G, 256m. Raises ValueError."""
    match = re.fullmatch(r"(\d+)([kmg])b?", text.lower())
    if match is None:
        raise ValueError(f"no size: {text}")
    return int(match[1]) * {"k": 2**10, "m": 2**20, "g": 2**30}[match[2]]


def limits(service: Service) -> dict[str, Any]:
    return service.get("deploy", {}).get("resources", {}).get("limits", {})


def _filled(value: Any, variables: Mapping[str, str]) -> Any:
    if isinstance(value, dict):
        return {key: _filled(entry, variables) for key, entry in value.items()}
    if isinstance(value, list):
        return [_filled(entry, variables) for entry in value]
    if not isinstance(value, str):
        return value

    def fill(match: re.Match[str]) -> str:
        if match[1]:
            return "$"
        if match[2] is None:
            raise ValueError(f"a lone $ in {value!r}")
        return variables.get(match[2]) or match[3] or ""

    return _VARIABLE.sub(fill, value)
