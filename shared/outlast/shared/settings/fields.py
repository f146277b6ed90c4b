"""What all settings share: the names that have no prefix, and the error that says what is wrong."""

from __future__ import annotations

from typing import Any

from pydantic import AliasChoices, Field

from outlast.shared.domain.errors import OutlastError

CONFIG_FILE = "outlast.toml"


class SettingsError(OutlastError):
    """A setting is wrong."""


def plain(name: str, **options: Any) -> Any:
    """A field whose environment variable has no OUTLAST_ prefix: a name that hosts and templates already use."""
    return Field(validation_alias=AliasChoices(name.upper(), name), **options)
