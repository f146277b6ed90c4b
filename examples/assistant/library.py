"""The folder that may be looked at: which of its files are seen, and nothing outside it."""

from __future__ import annotations

import itertools
import os
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from .steps import ToolError
from .words import clean

__all__ = ["Document", "Library", "Shelf", "documents", "find", "lines_of"]

MAX_FILE_BYTES = 1_000_000
MAX_PATHS = 20_000
MAX_FILES = 2_000
MAX_TOTAL_BYTES = 8_000_000
REPOSITORY = Path(__file__).resolve().parents[2]

# Files without a suffix (LICENSE, Makefile) are text too, unless they hold a NUL.
_TEXT_SUFFIXES = frozenset(
    """.adoc .bash .c .cfg .conf .cpp .cs .css .csv .go .h .hpp .htm .html .ini .java .js .json .jsonl .jsx
    .kt .log .lua .markdown .md .mdx .mk .org .php .properties .proto .ps1 .py .pyi .r .rb .rs .rst .scala
    .sh .sql .svelte .swift .tex .tf .toml .ts .tsv .tsx .txt .vue .xml .yaml .yml""".split()  # noqa: SIM905 - a quoted list of them is hard to read
) | {""}
_SKIPPED_FOLDERS = frozenset({"__pycache__", "node_modules"})


@dataclass(frozen=True, slots=True)
class Library:
    """Files are named relative to ``root``; only those under one of ``parts`` are seen."""

    root: Path
    parts: tuple[str, ...]

    @classmethod
    def at(cls, folder: str) -> Library:
        """The user's folder (``~`` is expanded), or when empty this repository's docs/ and README.md."""
        if not folder:
            return cls(REPOSITORY, ("docs", "README.md"))
        return cls(Path(os.path.expanduser(folder)).resolve(), (".",))

    @property
    def title(self) -> str:
        """What a person calls it. Never the absolute path: that is not the client's business."""
        return " and ".join(self.label(part) for part in self.parts)

    def label(self, part: str) -> str:
        name = clean(self.root.name) if part == "." else part
        return name if Path(part).suffix else f"{name}/"


@dataclass(frozen=True, slots=True)
class Document:
    """A text file of the library. ``stamp`` changes when its content does."""

    name: str
    path: Path
    size: int
    stamp: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Shelf:
    """The documents in the order of their names, and what a reader must know of those left out."""

    documents: tuple[Document, ...]
    remarks: tuple[str, ...]


def documents(library: Library) -> Shelf:
    """Every text file that may be seen, up to `MAX_FILES`, `MAX_TOTAL_BYTES` and `MAX_PATHS` looked at."""
    found: list[Document] = []
    remarks: list[str] = []
    for part in library.parts:
        before = len(found)
        paths = _paths_under(library.root / part)
        found += filter(None, (_document(library, path) for path in itertools.islice(paths, MAX_PATHS)))
        if next(paths, None):
            remarks.append(f"{library.label(part)} holds more files than were looked at")
        if len(found) == before:
            state = "has no text" if os.path.exists(library.root / part) else "is missing"
            remarks.append(f"{library.label(part)} {state}")
    kept = _first(found)
    if len(kept) < len(found):
        remarks.append(f"only the first {len(kept)} of {len(found)} files were searched")
    return Shelf(kept, tuple(remarks))


def find(library: Library, name: str) -> Document:
    """The document of that name, or the only one whose path ends in it.

    A path that leaves the library is refused in the same words whether or not it exists.
    """
    if document := _document(library, library.root / name):
        return document
    inside = os.path.normpath(name)
    if Path(name).is_absolute() or inside.startswith("..") or name.startswith("~"):
        raise ToolError(f"{name} is outside {library.title}, and only files in there are read")
    ending = "/" + Path(inside).as_posix()
    matches = [each for each in documents(library).documents if f"/{each.name}".endswith(ending)]
    if len(matches) > 1:
        raise ToolError(f"{name} could be any of {', '.join(each.name for each in matches[:5])}")
    if not matches:
        raise ToolError(f"there is no text file {name} in {library.title} (up to 1 MB, not hidden)")
    return matches[0]


def lines_of(document: Document) -> tuple[str, ...]:
    """The lines without their ends, counted as an editor does; none when the file is binary or gone."""
    try:
        with document.path.open("rb") as file:
            data = file.read(MAX_FILE_BYTES)
    except OSError:
        return ()
    if b"\0" in data:
        return ()
    text = clean(data.decode("utf-8-sig", errors="replace"))
    return tuple(text.removesuffix("\n").split("\n")) if text else ()


def _first(found: Sequence[Document]) -> tuple[Document, ...]:
    """As many as `MAX_FILES` and `MAX_TOTAL_BYTES` allow."""
    sizes = itertools.accumulate(document.size for document in found[:MAX_FILES])
    return tuple(document for document, total in zip(found, sizes, strict=False) if total <= MAX_TOTAL_BYTES)


def _paths_under(top: Path) -> Iterator[Path]:
    """The files below, in the order of their names; ``top`` itself when it is one."""
    if os.path.isfile(top):
        yield top
    for folder, folders, files in os.walk(top):
        folders[:] = sorted(name for name in folders if name[0] != "." and name not in _SKIPPED_FOLDERS)
        yield from (Path(folder, name) for name in sorted(files))


def _document(library: Library, path: Path) -> Document | None:
    """The one gate: whatever is searched or read has passed here."""
    if path.suffix.lower() not in _TEXT_SUFFIXES:
        return None
    try:
        path = Path(os.path.normpath(path))
        name = path.relative_to(library.root)
        real = path.resolve(strict=True)
        status = real.stat()
    except (OSError, RuntimeError, ValueError):  # gone, a loop of links, not below the root, a NUL in it
        return None
    # The status of a pipe or a device says 0 bytes, and opening one may block for ever.
    ordinary = stat.S_ISREG(status.st_mode) and 0 < status.st_size <= MAX_FILE_BYTES
    inside = _inside(library, real)
    if not ordinary or inside is None or not (_is_open(name) and _is_open(inside)):
        return None
    stamp = (status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
    return Document(name.as_posix(), path, status.st_size, stamp)


def _inside(library: Library, real: Path) -> Path | None:
    """Where in a part a file really is, whatever links led to it."""
    tops = ((library.root / part).resolve() for part in library.parts)
    return next((real.relative_to(top) for top in tops if real.is_relative_to(top)), None)


def _is_open(name: Path) -> bool:
    """Whether no part of the path is hidden, and all of it can be stored and shown."""
    text = str(name)
    return clean(text) == text and not any(each.startswith(".") or "\n" in each for each in name.parts)
