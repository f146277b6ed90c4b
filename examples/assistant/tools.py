"""The four tools. What a model knows of each is its name, its docstring and the types of its arguments."""

from __future__ import annotations

import itertools
import os
from datetime import UTC, datetime
from functools import lru_cache

from langchain_core.tools import BaseTool, tool

from .calculator import calculate
from .clock import tell_time
from .library import Document, Library, Shelf, documents, find, lines_of
from .passages import Passage, cut
from .results import count, write_lines, write_listing
from .search import rank
from .steps import ToolError

__all__ = ["TOOLS", "library"]

MAX_READ_LINES = 200


def library() -> Library:
    """Where to look: ``ASSISTANT_FOLDER``, else this repository's documentation."""
    return Library.at(os.environ.get("ASSISTANT_FOLDER", ""))


@tool(parse_docstring=True)
def search(query: str) -> str:
    """Search the user's files for passages. It matches words, not meanings, so name what the files would name.

    Each place found is one line: the file, the line of its best sentence, the lines of the passage around it (which
    `read` shows), and the sentence.

    Args:
        query: The words to look for, without filler words.
    """
    where = library()
    shelf = documents(where)
    files = [passages for document in shelf.documents if (passages := _passages(document))]
    ranking = rank(list(itertools.chain(*files)), query)
    return write_listing(ranking, f"{count(len(files), 'file')} of {where.title}{_aside(shelf)}")


@tool(parse_docstring=True)
def read(file: str, first_line: int = 1, last_line: int | None = None) -> str:
    """Show lines of one of the user's files, each with its number; at most 200 at once.

    Args:
        file: The file's name as a search gives it, or the end of its path.
        first_line: The number of the first line wanted; the file begins with 1.
        last_line: The number of the last line wanted, itself included. Left out: as many as fit.
    """
    if last_line is not None and last_line < first_line:
        raise ToolError(f"line {last_line} comes before line {first_line}")
    document = find(library(), file)
    lines = lines_of(document)
    if not lines:
        raise ToolError(f"{document.name} holds no text")
    if not 1 <= first_line <= len(lines):
        raise ToolError(f"{document.name} has lines 1 to {len(lines)}, not {first_line}")
    last = min(last_line or len(lines), first_line + MAX_READ_LINES - 1)
    return write_lines(document.name, first_line, lines[first_line - 1 : last], len(lines))


@tool(parse_docstring=True)
def clock(timezone: str | None = None) -> str:
    """Tell the present date and time, in UTC and in a time zone.

    Args:
        timezone: An IANA name like Asia/Tokyo, or the last part of one. Left out: UTC alone.
    """
    return tell_time(datetime.now(UTC), timezone)


@tool(parse_docstring=True)
def calculator(expression: str) -> str:
    """Calculate exactly.

    Args:
        expression: Arithmetic as in Python: numbers, + - * / // % ** and parentheses.
    """
    return calculate(expression)


TOOLS: tuple[BaseTool, ...] = (search, read, clock, calculator)
for each in TOOLS:
    each.handle_tool_error = True  # a ToolError becomes the tool's result, so that the model can try otherwise


def _aside(shelf: Shelf) -> str:
    return f" ({'; '.join(shelf.remarks)})" if shelf.remarks else ""


@lru_cache(maxsize=4_000)
def _passages(document: Document) -> tuple[Passage, ...]:
    """Cut once per content: the document's stamp is part of the key."""
    return cut(document.name, lines_of(document))
