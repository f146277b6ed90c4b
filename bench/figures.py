"""What is measured, what was hoped for, and how both are printed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median, quantiles

Bare = float
"""The bare rate of the same minute: single-row commits a second of 1 KB rows, by 32 connections."""


@dataclass(frozen=True, slots=True)
class Figure:
    """One number. A target is a limit for the value, or for its ratio to the bare rate when it has one."""

    name: str
    value: float
    unit: str
    of_bare: float | None = None
    at_most: float | None = None
    at_least: float | None = None

    @property
    def reached(self) -> bool | None:
        """None: it has no target."""
        compared = self.value if self.of_bare is None else self.of_bare
        if self.at_most is not None:
            return compared <= self.at_most
        return None if self.at_least is None else compared >= self.at_least


def rate(name: str, per_second: float, bare: Bare, *, at_least: float | None = None) -> Figure:
    """A rate of commits; ``at_least`` is a ratio to the bare one."""
    return Figure(name, per_second, "/s", of_bare=per_second / bare, at_least=at_least)


def percentiles(
    name: str, seconds: Sequence[float], *, p50: float | None = None, p99: float | None = None
) -> list[Figure]:
    """The median and the 99th percentile in milliseconds, with what they should be at most."""
    if len(seconds) < 2:
        raise ValueError(f"{name}: nothing was measured")
    return [
        Figure(f"{name} p50", median(seconds) * 1000, "ms", at_most=p50),
        Figure(f"{name} p99", quantiles(seconds, n=100)[98] * 1000, "ms", at_most=p99),
    ]


def table(figures: Sequence[Figure]) -> str:
    rows = [_row(figure) for figure in figures]
    return "\n".join(
        f"{name:<58} {value:>11} {unit:<5} {ratio:>8}  {target:<9} {reached}".rstrip()
        for name, value, unit, ratio, target, reached in [
            ("figure", "value", "", "of bare", "target", ""),
            *rows,
        ]
    )


def _row(figure: Figure) -> tuple[str, ...]:
    ratio = "" if figure.of_bare is None else f"{figure.of_bare:.3f}"
    limits = (("<=", figure.at_most), (">=", figure.at_least))
    target = next((f"{sign} {limit:,g}" for sign, limit in limits if limit is not None), "")
    reached = {None: "", True: "reached", False: "MISSED"}[figure.reached]
    value = f"{figure.value:,.0f}" if figure.value >= 1000 else f"{figure.value:.2f}"
    return figure.name, value, figure.unit, ratio, target, reached
