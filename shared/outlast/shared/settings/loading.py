"""Reading the settings of this process."""

from __future__ import annotations

from typing import Any

from pydantic import AliasChoices, ValidationError

from .fields import CONFIG_FILE, SettingsError
from .settings import Settings


def variables() -> frozenset[str]:
    """The names of the environment variables that are read."""
    found: set[str] = set()
    for name, field in Settings.model_fields.items():
        alias = field.validation_alias
        names = alias.choices if isinstance(alias, AliasChoices) else [f"OUTLAST_{name}"]
        found |= {str(choice).upper() for choice in names}
    return frozenset(found)


def load(**overrides: Any) -> Settings:
    """The settings of this process. Raises SettingsError, which names what is wrong but never repeats a value."""
    try:
        return Settings(**overrides)
    except ValidationError as error:
        problems = [
            f"{'.'.join(map(str, e['loc'])) or 'settings'}: {e['msg'].removeprefix('Value error, ')}"
            for e in error.errors(include_input=False)
        ]
        raise SettingsError("; ".join(problems)) from None
    except ValueError as error:  # outlast.toml is not TOML
        raise SettingsError(f"{CONFIG_FILE}: {error}") from None
