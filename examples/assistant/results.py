"""What `search` and `read` return, as text: written for any model, and read back by the offline one. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from .quotes import excerpt
from .search import Place, Ranking
from .words import clip

__all__ = ["Found", "Lines", "Listing", "count", "write_lines", "write_listing"]

MAX_SHOWN = 1_000
"""Characters of one line of a file."""

_FIRST = re.compile(r"\d+ places? in (?P<searched>.*)")
_PLACE = re.compile(r"(?P<file>.+?):(?P<line>\d+) \(lines (?P<first>\d+)-(?P<last>\d+)\)  (?P<text>.*)")
_TITLE = re.compile(r"(?P<file>.*), lines? (?P<first>\d+)(?:-\d+)? of \d+:")
_NUMBERED = re.compile(r" *\d+  (?P<text>.*)")


@dataclass(frozen=True, slots=True)
class Found:
    """A passage of a file, and the sentence of it to look at first."""

    file: str
    first_line: int
    last_line: int
    line: int
    text: str

    @classmethod
    def of(cls, place: Place, ranking: Ranking) -> Found:
        passage, sentence = place.passage, place.sentence
        text = excerpt(sentence.text, ranking.rarity)
        return cls(passage.file, passage.first_line, passage.last_line, sentence.line, text)

    def __str__(self) -> str:
        return f"{self.file}:{self.line} (lines {self.first_line}-{self.last_line})  {self.text}"


@dataclass(frozen=True, slots=True)
class Listing:
    """What a search found: where it looked, the places in their order, and a remark on the words that no file has."""

    searched: str
    places: tuple[Found, ...]
    missing: str

    @classmethod
    def read(cls, text: str) -> Listing:
        first, *lines = text.split("\n")
        searched = _FIRST.fullmatch(first)
        matches = [_PLACE.fullmatch(line) for line in lines]
        places = (Found(m["file"], int(m["first"]), int(m["last"]), int(m["line"]), m["text"]) for m in matches if m)
        missing = next((line for line, match in zip(lines, matches, strict=True) if match is None), "")
        return cls(searched["searched"] if searched else "", tuple(places), missing)


@dataclass(frozen=True, slots=True)
class Lines:
    """What a read showed: the first line's number, and the lines without theirs."""

    file: str
    first_line: int
    lines: tuple[str, ...]

    @classmethod
    def read(cls, text: str) -> Lines:
        title, _, body = text.partition("\n\n")
        match = _TITLE.fullmatch(title)
        numbered = (_NUMBERED.fullmatch(line) for line in body.split("\n"))
        lines = tuple(each["text"] for each in numbered if each)
        return cls(match["file"], int(match["first"]), lines) if match else cls("", 1, ())


def write_listing(ranking: Ranking, searched: str) -> str:
    lines = [f"{count(len(ranking.places), 'place')} in {searched}"]
    if ranking.places and ranking.missing:
        lines.append(f"No file has {', '.join(f'“{clip(word, 60)}”' for word in ranking.missing[:5])}.")
    return "\n".join(lines + [str(Found.of(place, ranking)) for place in ranking.places])


def write_lines(file: str, first_line: int, lines: Sequence[str], total: int) -> str:
    """The lines with their numbers; ``total`` is how many the file has."""
    last = first_line + len(lines) - 1
    which = f"line {last}" if len(lines) == 1 else f"lines {first_line}-{last}"
    numbered = "\n".join(f"{number:>5}  {clip(line, MAX_SHOWN)}" for number, line in enumerate(lines, first_line))
    return f"{file}, {which} of {total}:\n\n{numbered}"


def count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
