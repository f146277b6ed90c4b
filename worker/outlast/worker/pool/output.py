"""What code in a child writes to its standard output and error: the parent logs it, line by line.

The streams themselves are a pipe, so that subprocesses and libraries in C are covered, and the words before a crash.
A child that writes faster than its parent logs waits, as it would for a slow terminal.
"""

from __future__ import annotations

import logging
import os
import sys
import threading
from multiprocessing.connection import Connection
from typing import TextIO

import structlog

_LOGGER = logging.getLogger("outlast.printed")
_LOGGER.setLevel(logging.INFO)  # whatever OUTLAST_LOG_LEVEL says: a person looks for what an agent prints
log = structlog.wrap_logger(_LOGGER, wrapper_class=structlog.make_filtering_bound_logger(logging.INFO))

_OUTPUT, _ERROR = 1, 2
_READ_BYTES = 64 * 1024
_LONGEST_BYTES = 16 * 1024  # of a line that does not end
_SILENCE_SECONDS = 1.0  # after which what is there counts as a line


def divert(end: Connection) -> TextIO:
    """Have this process's standard output and error go to a pipe. Returns what was its standard error."""
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    own = _text(os.dup(_ERROR))
    for number in (_OUTPUT, _ERROR):
        os.dup2(end.fileno(), number)
    end.close()
    sys.stdout = sys.__stdout__ = _text(_OUTPUT)
    sys.stderr = sys.__stderr__ = _text(_ERROR)
    return own


def _text(number: int) -> TextIO:
    """A line is written when it ends, so that it is not lost with the process."""
    return open(number, "w", buffering=1, encoding="utf-8", errors="backslashreplace", closefd=False)


def log_lines(end: Connection, pid: int) -> threading.Thread:
    """Log what a child writes, until nothing has its end of the pipe open any more."""
    thread = threading.Thread(target=_log_lines, args=(end, pid), name=f"output of {pid}", daemon=True)
    thread.start()
    return thread


def _log_lines(end: Connection, pid: int) -> None:
    rest = b""
    with end:
        while True:
            if rest and not end.poll(_SILENCE_SECONDS):
                rest = _log(rest, pid)
            if not (said := os.read(end.fileno(), _READ_BYTES)):
                break
            *lines, rest = (rest + said).split(b"\n")
            for line in lines:
                _log(line, pid)
            if len(rest) >= _LONGEST_BYTES:
                rest = _log(rest, pid)
    _log(rest, pid)


def _log(line: bytes, pid: int) -> bytes:
    """Returns what is left of the line: nothing."""
    if text := line.decode(errors="replace").rstrip():
        log.info("agent.printed", pid=pid, text=text)
    return b""
