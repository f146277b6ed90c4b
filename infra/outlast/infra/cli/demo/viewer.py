"""The client of the demo: it reads one stream, in a thread of its own, and goes to the next replica when it is cut."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import httpx

from outlast.infra.cli.client import Client, cursor, event_of
from outlast.shared.domain.errors import OutlastError

_GIVE_UP_SECONDS = 25.0
_PAUSE_SECONDS = 0.05


@dataclass(frozen=True, slots=True)
class Cut:
    """The connection is lost; this is the number of the last whole event."""

    after: int


@dataclass(frozen=True, slots=True)
class Ended:
    """Nothing more comes: the stream has come to its end, or the error says why there is none."""

    error: OutlastError | None = None


Seen = dict[str, Any] | Cut | Ended


class Viewer(threading.Thread):
    """Submits a background run at the first replica and passes on what it sees. Keeps every frame as it came."""

    def __init__(self, urls: Sequence[str], body: dict[str, Any], see: Callable[[Seen], None]) -> None:
        super().__init__(name="viewer", daemon=True)
        self.frames: list[bytes] = []
        self._clients = [Client(url) for url in urls]
        self._body = {**body, "background": True, "stream": True}
        self._see = see
        self._response_id = ""
        self._last = -1

    def run(self) -> None:
        try:
            self._receive()
            self._see(Ended())
        except OutlastError as error:
            self._see(Ended(error))
        except httpx.TransportError as error:
            self._see(Ended(OutlastError(f"No API replica answers: {error}")))

    def _receive(self) -> None:
        """Read to the end of the stream, over as many connections as it takes."""
        since = time.monotonic()
        for client in itertools.cycle(self._clients):
            try:
                for frame in self._connect(client):
                    self._keep(frame)
                    since = time.monotonic()
                return
            except httpx.TransportError:
                if self._last < 0 or time.monotonic() - since > _GIVE_UP_SECONDS:
                    raise
                self._see(Cut(self._last))
            time.sleep(_PAUSE_SECONDS)

    def _connect(self, client: Client) -> Iterator[bytes]:
        if self._last < 0:
            return client.frames("POST", "/responses", json=self._body)
        return client.frames("GET", f"/responses/{self._response_id}", params=cursor(self._last))

    def _keep(self, frame: bytes) -> None:
        self.frames.append(frame)
        event = event_of(frame)
        if event is not None:
            self._last = event["sequence_number"]
            self._response_id = self._response_id or event["response"]["id"]
            self._see(event)


def read_log(url: str, response_id: str) -> list[bytes]:
    """The whole log of a run that has ended, as the API streams it. Raises OutlastError."""
    try:
        return list(Client(url).frames("GET", f"/responses/{response_id}", params=cursor(-1)))
    except httpx.TransportError as error:
        raise OutlastError(f"The log cannot be read: {error}") from None
