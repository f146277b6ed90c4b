"""Cutting a file into passages: a paragraph, an item, a row or a block of code, under its headings. Pure."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath

from .words import terms

__all__ = ["Passage", "cut", "defined_word", "is_fence", "is_prose"]

MAX_LINES = 24
MAX_OPENING = 200
HEADING_WEIGHT = 2.0
NAME_WEIGHT = 0.5

_PROSE = frozenset({".md", ".markdown", ".mdx", ".rst", ".txt", ".adoc", ".org", ".tex"})
_FENCE = re.compile(r"\s*(```|~~~)")
_ITEM = re.compile(r"\s*(?:[-*+]\s|\d{1,3}[.)]\s|\|(?!\s*:?-))")
_UNDERLINE = re.compile(r"([=~^\-])\1{2,}\s*")
_HASHES = re.compile(r"(#{1,6})\s+(.+)")
_FUNCTION = re.compile(r"(\s*)(?:async def|def|class)\s+(\w+)")
_DEFINITION = re.compile(r"\W*(?:(?:an?|the)\s)?\W*(\w+)\W*?(?:\s(?:is|are|means)\s|:\s|\s[|–—]\s)", re.IGNORECASE)
_SECTION = re.compile(r"\[+([^\[\]]+)\]+\s*")


@dataclass(frozen=True, slots=True)
class Passage:
    """Lines of one file. ``weights`` counts its terms, those of its headings and file name included."""

    file: str
    first_line: int
    lines: tuple[str, ...]
    weights: Mapping[str, float]
    size: float
    """The sum of the weights."""
    is_example: bool = False
    """Whether it is a block of code in a text, which shows what the text around it says."""

    @property
    def last_line(self) -> int:
        return self.first_line + len(self.lines) - 1


def is_prose(file: str) -> bool:
    """Whether a sentence may go on in the next line, as it does in text and does not in code or data."""
    name = PurePosixPath(file)
    return name.suffix.lower() in _PROSE or (not name.suffix and name.name.isupper())


def is_fence(line: str) -> bool:
    """Whether the line begins or ends a block of code in a text."""
    return _FENCE.match(line) is not None


def defined_word(text: str) -> str:
    """What the text opens by defining: "A lease is …", "lease: …", "| **Lease** | …". Empty when nothing."""
    match = _DEFINITION.match(text[:MAX_OPENING])  # on a long row of dashes the pattern is quadratic
    return match[1] if match else ""


def cut(file: str, lines: Sequence[str]) -> tuple[Passage, ...]:
    """The passages of a file, in order. Blank lines and headings end one, and so does its length."""
    cutter = _Cutter(file, PurePosixPath(file).suffix.lower(), is_prose(file))
    for index, line in enumerate(lines):
        following = lines[index + 1] if index + 1 < len(lines) else ""
        cutter.take(index + 1, line, following)
    cutter.end()
    return tuple(cutter.done)


@dataclass(slots=True)
class _Cutter:
    file: str
    suffix: str
    prose: bool
    done: list[Passage] = field(default_factory=list[Passage])
    trail: list[tuple[int, str]] = field(default_factory=list[tuple[int, str]])
    lines: list[str] = field(default_factory=list[str])
    first: int = 1
    in_fence: bool = False
    only_heading: bool = False

    def take(self, number: int, line: str, following: str) -> None:
        fence = self.prose and is_fence(line)
        heading = None if self.in_fence else self._heading(line, following)
        opens = self.prose and not self.in_fence and (fence or _ITEM.match(line))
        if heading or len(self.lines) >= MAX_LINES or (opens and not self.only_heading):
            self.end()
        if heading:
            self.trail = [each for each in self.trail if each[0] < heading[0]] + [heading]
        self.in_fence ^= fence
        self._add(number, line, is_heading=heading is not None)
        if fence and not self.in_fence:
            self.end()

    def _add(self, number: int, line: str, *, is_heading: bool) -> None:
        if not line.strip() and not self.in_fence and not self.only_heading:
            self.end()
        elif self.lines or line.strip():
            # A heading stays with the first paragraph below it, across blank lines and its underline.
            titles = is_heading or (self.only_heading and _is_decoration(line))
            self.only_heading = titles and self.prose
            self.first = self.first if self.lines else number
            self.lines.append(line)

    def end(self) -> None:
        while self.lines and not self.lines[-1].strip():
            self.lines.pop()
        if self.lines:
            weights = self._weights()
            example = self.prose and any(map(is_fence, self.lines))
            lines, size = tuple(self.lines), sum(weights.values())
            self.done.append(Passage(self.file, self.first, lines, weights, size, example))
        self.lines, self.only_heading = [], False

    def _weights(self) -> Mapping[str, float]:
        weights = Counter[str]()
        for text, weight in (
            ("\n".join(self.lines), 1.0),
            (" ".join(title for _, title in self.trail), HEADING_WEIGHT),
            (defined_word(self.lines[0]), HEADING_WEIGHT),
            (str(PurePosixPath(self.file).with_suffix("")), NAME_WEIGHT),
        ):
            for each in terms(text):
                weights[each] += weight  # pyright: ignore[reportArgumentType] - a Counter adds floats too
        return weights

    def _heading(self, line: str, following: str) -> tuple[int, str] | None:
        """The level (1 is the highest) and the title, when the line is a heading in this kind of file."""
        return _prose_heading(line, following) if self.prose else _code_heading(self.suffix, line)


def _is_decoration(line: str) -> bool:
    return not line.strip() or _UNDERLINE.fullmatch(line) is not None


def _prose_heading(line: str, following: str) -> tuple[int, str] | None:
    if match := _HASHES.fullmatch(line):
        return len(match[1]), match[2]
    underline = _UNDERLINE.fullmatch(following)
    if underline and line.strip() and not _UNDERLINE.fullmatch(line):
        return (1 if underline[1] == "=" else 2), line.strip()
    return None


def _code_heading(suffix: str, line: str) -> tuple[int, str] | None:
    if suffix in {".py", ".pyi"} and (match := _FUNCTION.match(line)):
        return 1 + len(match[1]) // 4, match[2]
    if suffix in {".toml", ".ini", ".cfg"} and (match := _SECTION.fullmatch(line)):
        return 1, match[1]
    return None
