"""A project of LangGraph's users around its ``langgraph.json``: where its code is, what it needs, what it sets."""

from __future__ import annotations

import os
import re
import sys
import tomllib
from collections.abc import Iterable, Mapping
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Any, cast

import structlog
from dotenv import dotenv_values  # comes with pydantic-settings

from outlast.shared.settings import SettingsError, graph_files

log = structlog.get_logger()

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


def enter(file: str) -> None:
    """Make a project's code importable, and set what it sets and the environment does not.

    Raises SettingsError for packages that it lists and that are not installed: they are not for us to install.
    """
    try:
        project = graph_files.read(file)
    except ValueError as error:
        raise SettingsError(str(error)) from None
    folder = Path(file).resolve().parent
    listed = [str(one) for one in _list(project.get("dependencies"))]
    local = [folder / one for one in listed if one.startswith(".") or (folder / one).is_dir()]
    if gone := [str(path) for path in local if not path.exists()]:
        raise SettingsError(f"{file} depends on {', '.join(gone)}, which is not there")
    if missing := missing_packages(one for one in listed if not (one.startswith(".") or (folder / one).is_dir())):
        raise SettingsError(f"{file} depends on packages that are not installed: {', '.join(missing)}")
    for path in (folder, *local):
        _add(path / "src")
        _add(path)
    _set(folder, project.get("env"))


def needed_by(folder: Path) -> list[str]:
    """Return the packages that the project around a folder lists and that are not installed."""
    for around in (folder, *folder.parents):
        if (around / "pyproject.toml").is_file():
            project = tomllib.loads((around / "pyproject.toml").read_text("utf-8")).get("project", {})
            return missing_packages(project.get("dependencies", ()))
        if (around / "requirements.txt").is_file():
            return missing_packages((around / "requirements.txt").read_text("utf-8").splitlines())
    return []


def missing_packages(requirements: Iterable[str]) -> list[str]:
    """Return the names of those that are not installed. Versions are not looked at, nor what is for some systems."""
    missing: list[str] = []
    for requirement in requirements:
        name = None if ";" in requirement else _NAME.match(requirement.strip())
        if name and not _is_installed(name[0]):
            missing.append(name[0])
    return missing


def _is_installed(package: str) -> bool:
    try:
        distribution(package)
    except PackageNotFoundError:
        return False
    return True


def _list(value: Any) -> list[Any]:
    return cast("list[Any]", value) if isinstance(value, list) else []


def _add(path: Path) -> None:
    if path.is_dir() and str(path) not in sys.path:
        sys.path.insert(0, str(path))


def _set(folder: Path, env: Any) -> None:
    """Set variables from a mapping, or from a file that a project names and may not have."""
    values: Mapping[str, Any] = {}
    if isinstance(env, dict):
        values = cast("dict[str, Any]", env)
    elif isinstance(env, str) and (folder / env).is_file():
        values = dotenv_values(folder / env)
    elif isinstance(env, str):
        log.warning("agent.env_missing", file=env)
    for name, value in values.items():
        if value is not None:
            os.environ.setdefault(name, str(value))
