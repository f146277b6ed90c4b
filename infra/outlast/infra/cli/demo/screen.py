"""What a reader of the demo sees: a column of labels and event numbers, and beside it what is said and done."""

from __future__ import annotations

import os
import re
import shutil
import sys
import textwrap
from collections.abc import Callable
from typing import TextIO

from outlast.shared.domain.plain_text import on_a_line, visible

_GUTTER = 8
_WIDEST = 100
_NARROWEST = 20
_COLOURS = {"red": "1;31", "green": "32", "yellow": "33", "dim": "2", "bold": "1"}
_WORD = re.compile(r"(\s*)(\S*)")
_ERASE = "\r\x1b[K"


class Screen:
    """``live``: a line that changes is drawn over itself. Without it there is one every other second."""

    def __init__(self, out: TextIO, *, columns: Callable[[], int], live: bool, coloured: bool) -> None:
        self._out = out
        self._columns = columns
        self._live = live
        self._coloured = coloured
        self._column = 0
        """How much of the answer's last line is used; 0 between lines."""
        self._blank = ""
        """What is between its last word and the next one."""
        self._ticking = False
        self._ticked = ("", -1)

    @classmethod
    def of_terminal(cls) -> Screen:
        """The standard output. Colours only on a terminal, and not with NO_COLOR."""
        out: TextIO = sys.stdout
        if callable(reconfigure := getattr(out, "reconfigure", None)):
            reconfigure(errors="replace")  # a terminal that lacks a sign shows another
        live = out.isatty() and os.environ.get("TERM") != "dumb"
        coloured = live and not os.environ.get("NO_COLOR")
        return cls(out, columns=lambda: shutil.get_terminal_size().columns, live=live, coloured=coloured)

    @property
    def _width(self) -> int:
        return max(_NARROWEST, min(self._columns() - 1, _WIDEST) - _GUTTER)

    def tell(self, label: str, text: str, colour: str = "bold") -> None:
        """A line or more, with a label."""
        self.settle()
        first, *more = textwrap.wrap(on_a_line(text), self._width, break_on_hyphens=False) or [""]
        self._write(f"{self._gutter(label, colour)}{first}\n")
        for line in more:
            self._write(f"{' ' * _GUTTER}{line}\n")

    def tell_briefly(self, label: str, text: str) -> None:
        """One line, cut where the screen ends."""
        self.settle()
        self._write(f"{self._gutter(label, 'dim')}{_cut(on_a_line(text), self._width)}\n")

    def space(self) -> None:
        self.settle()
        self._write("\n")

    def answer(self, number: int, piece: str) -> None:
        """A piece of the answer as it comes. A line of it begins with the number of the event that began it."""
        self._end_tick()
        for blank, word in _WORD.findall(visible(piece)):
            self._blank += blank
            if self._column and ("\n" in self._blank or self._column + len(self._blank + word) > self._width):
                self.settle()
            if not word:
                continue
            if not self._column:
                self._write(self._gutter(str(number), "dim"))
                self._blank = ""
            self._write(self._blank + word)
            self._column += len(self._blank + word)
            self._blank = ""

    def tick(self, label: str, seconds: float, text: str) -> None:
        """How long something has been going on, and what is known of it."""
        said = f"{seconds:.1f} s  {on_a_line(text)}"
        if self._live:
            if not self._ticking:
                self.settle()
            self._write(f"{_ERASE}{self._gutter(label, 'yellow')}{_cut(said, self._width)}")
            self._ticking = True
        elif (tick := (label, int(seconds / 2))) != self._ticked:
            self._ticked = tick
            self.tell(label, said)

    def _end_tick(self) -> None:
        if self._ticking:
            self._write(_ERASE)
            self._ticking = False

    def settle(self) -> None:
        """End the line that is being written."""
        self._end_tick()
        if self._column:
            self._write("\n")
            self._column = 0
        self._blank = ""

    def _gutter(self, label: str, colour: str) -> str:
        padded = label.rjust(_GUTTER - 2)
        if self._coloured:
            padded = f"\x1b[{_COLOURS[colour]}m{padded}\x1b[0m"
        return f"{padded}  "

    def _write(self, text: str) -> None:
        self._out.write(text)
        self._out.flush()


def _cut(text: str, width: int) -> str:
    return text if len(text) <= width else f"{text[: width - 1]}…"
