"""What an examination of a running Outlast finds: one sentence on what is seen, one on what to do about it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum


class Severity(StrEnum):
    OK = "ok"
    WARNING = "warning"
    """It works, and somebody should look at it."""
    ERROR = "error"
    """Runs do not start, do not go on, or are not seen."""


_ORDER = list(Severity)


@dataclass(frozen=True, slots=True)
class Finding:
    check: str
    """What was looked at, in a word."""
    severity: Severity
    seen: str
    fix: str | None = None
    """A command, a statement or a setting. Also beside what is well, where more could be seen or done."""


def ok(check: str, seen: str, fix: str | None = None) -> Finding:
    return Finding(check, Severity.OK, seen, fix)


def warning(check: str, seen: str, fix: str) -> Finding:
    return Finding(check, Severity.WARNING, seen, fix)


def error(check: str, seen: str, fix: str) -> Finding:
    return Finding(check, Severity.ERROR, seen, fix)


def worst(findings: Sequence[Finding]) -> Severity:
    return max((finding.severity for finding in findings), key=_ORDER.index, default=Severity.OK)
