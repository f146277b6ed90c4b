"""Reading along with Postgres: which statements a client executes, whether prepared long ago or sent with it."""

from __future__ import annotations

import struct
from collections.abc import Callable

from tests.support.proxy import Watch


class Statements:
    """The client's side of one connection, as it comes."""

    def __init__(self) -> None:
        self._rest = b""
        self._begun = False
        self._prepared: dict[bytes, str] = {}

    def feed(self, piece: bytes) -> list[str]:
        """The texts of what this piece executes."""
        self._rest += piece
        executed: list[str] = []
        while (message := self._next()) is not None:
            kind, body = message
            if kind == b"P":
                name, text, _ = body.split(b"\0", 2)
                self._prepared[name] = text.decode()
            elif kind == b"B":
                _, name, _ = body.split(b"\0", 2)
                executed.append(self._prepared.get(name, ""))
            elif kind == b"Q":
                executed.append(body.rstrip(b"\0").decode())
        return executed

    def _next(self) -> tuple[bytes, bytes] | None:
        typed = int(self._begun)
        if len(self._rest) < typed + 4:
            return None
        (length,) = struct.unpack_from("!i", self._rest, typed)
        if len(self._rest) < typed + length:
            return None
        kind, body = self._rest[:typed], self._rest[typed + 4 : typed + length]
        self._rest = self._rest[typed + length :]
        if not typed:
            self._begun = struct.unpack_from("!i", body)[0] == 3 << 16  # or it asks for encryption, and begins again
        return kind, body


def loses_answers_to(is_meant: Callable[[str], bool]) -> Callable[[], Watch]:
    """For `Proxy.watch`: the answers to these statements are lost; what they did is done."""

    def watch() -> Watch:
        statements = Statements()
        return lambda piece: any(is_meant(text) for text in statements.feed(piece))

    return watch
