"""The name server of an engine, as far as a proxy asks it: the addresses of a service's replicas."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress

_ANSWER_SECONDS = 1
_A = 1


class NameServer:
    """On UDP, until closed. ``addresses`` gives those of a name, none for a name it does not know."""

    def __init__(self, addresses: Callable[[str], Sequence[str]]) -> None:
        self._addresses = addresses
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._socket.getsockname()[1]}"
        threading.Thread(target=self._serve, name="names", daemon=True).start()

    def close(self) -> None:
        self._socket.close()

    def _serve(self) -> None:
        with suppress(OSError):  # closed
            while True:
                question, client = self._socket.recvfrom(4096)
                with suppress(IndexError, ValueError):  # no question
                    self._socket.sendto(self._answer(question), client)

    def _answer(self, packet: bytes) -> bytes:
        labels, at = list[str](), 12
        while length := packet[at]:
            labels.append(packet[at + 1 : at + 1 + length].decode("ascii"))
            at += length + 1
        asked, question = int.from_bytes(packet[at + 1 : at + 3], "big"), packet[12 : at + 5]
        found = self._addresses(labels[0].lower()) if asked == _A else []
        head = packet[:2] + b"\x85\x80" + b"\x00\x01" + len(found).to_bytes(2, "big") + b"\x00\x00\x00\x00"
        record = b"\xc0\x0c\x00\x01\x00\x01" + _ANSWER_SECONDS.to_bytes(4, "big") + b"\x00\x04"
        return head + question + b"".join(record + socket.inet_aton(address) for address in found)
