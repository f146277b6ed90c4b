"""Reading along with Postgres: which statements a client executes, whether prepared long ago or sent with it."""

from __future__ import annotations

import struct

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


class LostAnswers:
    """For `Proxy.watch`: the answers to statements with these words are lost, so many times; what they did is done."""

    def __init__(self, words: str, times: int = 1) -> None:
        self._words = words
        self._left = times

    def __call__(self) -> Watch:
        statements = Statements()
        return lambda piece: self._is_meant(statements.feed(piece))

    def _is_meant(self, executed: list[str]) -> bool:
        meant = self._left > 0 and any(self._words in text for text in executed)
        self._left -= meant
        return meant
