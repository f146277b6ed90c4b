"""What was found wrong, as values."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Violation:
    kind: str
    """Which promise is broken, in a word."""
    token: str
    """The run, by its request's text; empty when it is none in particular."""
    sentence: str

    def __str__(self) -> str:
        return f"{self.kind}: {self.token + ': ' if self.token else ''}{self.sentence}"
