"""The tools, and what the answer says of their results. Files are read here: call it in a thread."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from datetime import datetime
from functools import lru_cache

from .calculator import calculate
from .clock import tell_time
from .library import Document, Library, Shelf, documents, find, lines_of
from .passages import Passage, cut
from .quotes import quotation, sentences
from .search import Ranking, rank
from .steps import Calculate, Clock, Outcome, Quote, Read, Search, Step, ToolError
from .words import clip

__all__ = ["run"]

MAX_READ_LINES = 200
MAX_SHOWN = 400
QUOTED_PLACES = 3


def run(step: Step, library: Library, now: datetime) -> Outcome:
    """What the step asks for. Raises `ToolError` when the tool cannot do it."""
    match step:
        case Search():
            return _search(step, library)
        case Quote():
            return _quote(step, library)
        case Read():
            return _read(step, library)
        case Clock():
            told = tell_time(now, step.timezone)
            return Outcome(told, f"It is {told}.")
        case Calculate():
            value = calculate(step.expression)
            return Outcome(value, f"{step.expression} = {value}")


def _search(step: Search, library: Library) -> Outcome:
    shelf = documents(library)
    files = [passages for document in shelf.documents if (passages := _passages(document))]
    ranking = rank(list(itertools.chain(*files)), step.query)
    searched = f"{_count(len(files), 'file')} of {library.title}{_aside(shelf)}"
    listing = [f"{_count(len(ranking.places), 'place')} in {searched}"]
    listing += [f"{place}  {clip(place.sentence.text, 120)}" for place in ranking.places]
    quotes = tuple(
        Quote(p.file, p.first_line, p.last_line, ranking.rarity)
        for p in (place.passage for place in ranking.places[:QUOTED_PLACES])
    )
    return Outcome("\n".join(listing), _found(step, ranking, searched), quotes)


def _found(step: Search, ranking: Ranking, searched: str) -> str:
    query = f"“{clip(step.query, 200)}”"
    if not ranking.places:
        return f"Nothing was found for {query} in {searched}."
    if not ranking.missing:
        return f"The best matches for {query} in {searched}:"
    absent = ", ".join(f"“{clip(word, 60)}”" for word in ranking.missing[:5])
    return f"No file has {absent}. The best matches for {query} in {searched}:"


def _aside(shelf: Shelf) -> str:
    return f" ({'; '.join(shelf.remarks)})" if shelf.remarks else ""


def _read(step: Read, library: Library) -> Outcome:
    document, lines, total = _lines(step, library)
    numbered = _numbered(step.first_line, lines)
    last = step.first_line + len(lines) - 1
    which = f"line {last}" if len(lines) == 1 else f"lines {step.first_line}-{last}"
    return Outcome(numbered, f"{document.name}, {which} of {total}:\n\n{numbered}")


def _quote(step: Quote, library: Library) -> Outcome:
    document, lines, _ = _lines(step, library)
    choices = sentences(document.name, step.first_line, lines)
    says = quotation(document.name, choices, step.rarity) if choices else ""
    return Outcome(_numbered(step.first_line, lines), says)


def _lines(step: Read, library: Library) -> tuple[Document, Sequence[str], int]:
    """The document, the lines asked for (at most `MAX_READ_LINES`) and how many it has."""
    if step.last_line is not None and step.last_line < step.first_line:
        raise ToolError(f"line {step.last_line} comes before line {step.first_line}")
    document = find(library, step.file)
    lines = lines_of(document)
    if not lines:
        raise ToolError(f"{document.name} holds no text")
    if not 1 <= step.first_line <= len(lines):
        raise ToolError(f"{document.name} has lines 1 to {len(lines)}, not {step.first_line}")
    wanted = step.last_line or len(lines)
    last = min(wanted, step.first_line + MAX_READ_LINES - 1)
    return document, lines[step.first_line - 1 : last], len(lines)


def _numbered(first_line: int, lines: Sequence[str]) -> str:
    return "\n".join(f"{number:>5}  {clip(line, MAX_SHOWN)}" for number, line in enumerate(lines, first_line))


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


@lru_cache(maxsize=4_000)
def _passages(document: Document) -> tuple[Passage, ...]:
    """Cut once per content: the document's stamp is part of the key."""
    return cut(document.name, lines_of(document))
