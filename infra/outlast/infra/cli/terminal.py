"""What commands show. No other module of theirs writes to a terminal, which obeys what it is sent."""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from typing import Any

import typer

from outlast.shared.domain.plain_text import on_a_line, visible
from outlast.shared.wire import to_json

_CLEAR = "\x1b[H\x1b[J"
_RAW_IN_JSON = re.compile("[\x7f-\x9f\u2028-\u202e\u2066-\u2069]")  # JSON escapes the other control characters itself


def echo(text: str = "", *, err: bool = False, nl: bool = True) -> None:
    """Show text of one line or more, or a piece of one (not ``nl``), at once."""
    typer.echo(visible(text), err=err, nl=nl)


def echo_line(text: str, *, err: bool = False) -> None:
    """Show text on exactly one line."""
    typer.echo(on_a_line(text), err=err)


def echo_json(value: Any) -> None:
    """Show a value as one line of JSON."""
    typer.echo(_RAW_IN_JSON.sub(lambda found: f"\\u{ord(found[0]):04x}", to_json(value)))


def echo_progress(text: str, *, last: bool) -> None:
    """Show a line beside the output, over the one before. ``last``: no other follows."""
    typer.echo(f"\r{on_a_line(text)}", err=True, nl=last)


def redraw(lines: Sequence[str]) -> None:
    """Show lines in place of the whole screen."""
    sys.stdout.write(_CLEAR + "\n".join(map(on_a_line, lines)) + "\n")
    sys.stdout.flush()
