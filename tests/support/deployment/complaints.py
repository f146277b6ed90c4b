"""What a rule has against a file. A rule is a function of what was read, named by what must be true."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, TypeVar

from pydantic import AliasChoices
from typer.main import get_command

from outlast.infra.cli import app
from outlast.shared.settings import Settings

Read = TypeVar("Read")
Rule = Callable[[Read], Iterator[str]]

OTHERS_VARIABLES = {
    "PGPASSFILE",
    "PATH",
    "TMPDIR",
    "PYTHONPATH",
    "PYTHONSAFEPATH",
    "PYTHONUNBUFFERED",
    "PYTHONDONTWRITEBYTECODE",
}
"""What libpq and Python read."""
OPTIONS_VARIABLES = {"OUTLAST_HEALTH_PORT", "PORT"}
"""What the command line reads."""
SECRET = re.compile(r"PASSWORD|SECRET|TOKEN|API_KEY|CREDENTIAL")


@dataclass(frozen=True)
class Complaint:
    rule: str
    what: str


def judged(read: Read, rules: Iterable[Rule[Read]]) -> list[Complaint]:
    """Everything that the rules have against it."""
    return [Complaint(rule.__name__, what) for rule in rules for what in rule(read)]


def is_pinned(image: str) -> bool:
    """By a version of at least two numbers, or a digest."""
    return "@sha256:" in image or re.match(r"\d+\.\d+", image.rpartition(":")[2]) is not None


@cache
def known_variables() -> set[str]:
    """Every environment variable that Outlast, its command line or what it stands on reads."""
    names = set[str]()
    for field, info in Settings.model_fields.items():
        alias = info.validation_alias
        choices = alias.choices if isinstance(alias, AliasChoices) else [alias or f"OUTLAST_{field}"]
        names |= {str(choice).upper() for choice in choices}
    return names | OTHERS_VARIABLES | OPTIONS_VARIABLES


def wrong_with_command(words: Sequence[str]) -> str | None:
    """What our command line has against it; None where it would start."""
    return _wrong_with(tuple(words))


@cache
def _wrong_with(words: tuple[str, ...]) -> str | None:
    if words[:1] != ("outlast",):
        return f"{words} is not a command of ours"
    command = get_command(app)
    try:
        with command.make_context("outlast", list(words[1:2]), resilient_parsing=True) as context:
            name, part, _ = command.resolve_command(context, list(words[1:]))  # type: ignore[attr-defined]
        part.make_context(name, list(words[2:]))
    except Exception as error:  # noqa: BLE001 — click's own, of whatever kind, is the answer
        return f"{' '.join(words)}: {getattr(error, 'message', error)}"
    return None


def option(words: Sequence[str], name: str) -> str | None:
    """The value of ``--name value``."""
    return next((value for flag, value in itertools.pairwise(words) if flag == name), None)


def asked_ports(healthcheck: Iterable[Any]) -> set[int]:
    """The ports that a health check's command names."""
    return {int(port) for word in healthcheck for port in re.findall(r"127\.0\.0\.1(?:'?,\s*|:)(\d+)", str(word))}
