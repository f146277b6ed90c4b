"""Events and other JSON as text and bytes. One event is one line: compact JSON, its type first, then its number."""

from __future__ import annotations

import re
from typing import Any, cast

import orjson

from .domain.events import Event

# Characters that JSON may hold as they are and that some clients' line splitters take for the end of a line.
_LINE_ENDS = re.compile("[\u0085\u2028\u2029]")
_TYPE_STARTS = len('{"type":"')


def to_json(value: Any, *, in_order: bool = False) -> str:
    """Compact JSON, the keys ``in_order`` of their names if asked.

    Raises TypeError for what JSON or its encoder cannot hold (255 levels deep, lone surrogates).
    """
    return orjson.dumps(value, option=orjson.OPT_SORT_KEYS if in_order else None).decode()


def from_json(text: str | bytes | bytearray) -> Any:
    """Raises ValueError when the text is not JSON."""
    return orjson.loads(text)


def event_line(event: Event) -> str:
    return _one_line(to_json({"type": event.type, "sequence_number": event.sequence_number, **event.fields}))


def response_line(type: str, sequence_number: int, response: str, created_at: float) -> str:
    """The line of an event that holds a response object, which is JSON already, and its time (seconds since 1970)."""
    head = f'"type":"{type}","sequence_number":{sequence_number}'
    return _one_line(f'{{{head},"response":{response},"created_at":{created_at:.3f}}}')


def _one_line(line: str) -> str:
    return line if line.isascii() else _LINE_ENDS.sub(_escaped, line)


def _escaped(match: re.Match[str]) -> str:
    return f"\\u{ord(match[0]):04x}"


def type_of(line: str) -> str:
    """The type of an event line, without parsing it."""
    return line[_TYPE_STARTS : line.index('"', _TYPE_STARTS)]


def event_from(line: str) -> Event:
    fields = from_json(line)
    return Event(fields.pop("type"), fields.pop("sequence_number"), fields)


def clean(text: str) -> str:
    """The text without lone surrogates, which UTF-8 cannot hold (a model's token may end within a character)."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-8", "replace").decode()
    return text


def clean_within(value: Any) -> Any:
    """Plain data with every text in it cleaned, keys too. Raises RecursionError when it is nested too deeply."""
    match value:
        case str():
            return clean(value)
        case dict():
            pairs = cast("dict[Any, Any]", value).items()
            return {clean_within(key): clean_within(part) for key, part in pairs}
        case list() | tuple():
            return [clean_within(part) for part in cast("list[Any]", value)]
        case _:
            return value
