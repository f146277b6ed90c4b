"""Where in its author's own files an agent cannot be loaded."""

from __future__ import annotations

import os
import sysconfig
import traceback
from collections.abc import Iterator
from pathlib import Path

import outlast

_FRAMES = 3
_INSTALLED = {"site-packages", "dist-packages"}
_OTHERS = (*outlast.__path__, sysconfig.get_path("stdlib"), sysconfig.get_path("platstdlib"))


def place_of(error: BaseException) -> str:
    """Return the last frames, as in ``, at agent.py:3 (import tools), tools.py:7 (KEY = os.environ["KEY"])``.

    Of an agent that is itself an installed package it is the last frame. Empty where there is none.
    """
    frames = list(_frames(error))
    own = [frame for frame in frames if _is_own(frame[0])]
    shown = [f"{_shown(file)}:{line}" + (f" ({source})" if source else "") for file, line, source in own or frames[-1:]]
    return f", at {', '.join(shown[-_FRAMES:])}" if shown else ""


def place_of_definition(found: object) -> str:
    """Return where a function is, as in ``, at agent.py:3``; empty for anything else."""
    code = getattr(found, "__code__", None)
    return f", at {_shown(code.co_filename)}:{code.co_firstlineno}" if code else ""


def _frames(error: BaseException) -> Iterator[tuple[str, int, str]]:
    """Files, lines and what is written there, without those of Outlast and of Python's own machinery."""
    for frame in traceback.extract_tb(error.__traceback__):
        if Path(frame.filename).is_absolute() and not _is_below(frame.filename, _OTHERS):
            yield frame.filename, frame.lineno or 0, (frame.line or "").strip()
    if isinstance(error, SyntaxError) and error.filename:  # the line was never executed: it is no frame
        yield error.filename, error.lineno or 0, (error.text or "").strip()


def _is_own(file: str) -> bool:
    return not _INSTALLED & set(Path(file).parts)


def _is_below(file: str, folders: tuple[str, ...]) -> bool:
    return not _INSTALLED & set(Path(file).parts) and any(Path(file).is_relative_to(folder) for folder in folders)


def _shown(file: str) -> str:
    return os.path.relpath(file) if Path(file).is_relative_to(Path.cwd()) else file
