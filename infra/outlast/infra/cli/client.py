"""A client that does not lose its place: it streams a response and goes on where it was after a lost connection."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import httpx

from outlast.shared.domain.errors import OutlastError
from outlast.shared.domain.events import TERMINAL_TYPES

_READ_TIMEOUT_SECONDS = 60.0  # a living stream says something every 15 s
_GIVE_UP_SECONDS = 60.0


class ClientError(OutlastError):
    """The API did not answer as it should."""


@dataclass(frozen=True, slots=True)
class Reconnected:
    """The connection was lost after this event and is back."""

    after: int


class Client:
    def __init__(self, url: str, key: str | None = None) -> None:
        headers = {"authorization": f"Bearer {key}"} if key else {}
        self._http = httpx.Client(
            base_url=url.rstrip("/") + "/v1",
            headers=headers,
            timeout=httpx.Timeout(10, read=_READ_TIMEOUT_SECONDS),
        )

    def create(self, body: dict[str, Any]) -> Iterator[dict[str, Any] | Reconnected]:
        """Submit a background run and follow it to its end."""
        request = {**body, "background": True, "stream": True}
        last: dict[str, Any] | None = None
        response_id = None
        try:
            for event in self._stream("POST", "/responses", json=request):
                response_id = response_id or event["response"]["id"]
                last = event
                yield event
        except httpx.TransportError as error:
            if last is None:
                raise ClientError(f"{self._http.base_url}: {error}") from None
        if last is not None and last["type"] not in TERMINAL_TYPES:
            assert response_id is not None
            yield from self._resume(response_id, last["sequence_number"])

    def follow(self, response_id: str, starting_after: int = -1) -> Iterator[dict[str, Any] | Reconnected]:
        """The events of a response after a number, to its end. Raises ClientError when the API stays away."""
        tried_since = time.monotonic()
        while True:
            try:
                for event in self._stream("GET", f"/responses/{response_id}", params=cursor(starting_after)):
                    starting_after, tried_since = event["sequence_number"], time.monotonic()
                    yield event
                    if event["type"] in TERMINAL_TYPES:
                        return
            except httpx.TransportError as error:
                if time.monotonic() - tried_since > _GIVE_UP_SECONDS:
                    raise ClientError(f"{self._http.base_url} has been away for a minute: {error}") from None
            time.sleep(0.3)

    def _resume(self, response_id: str, starting_after: int) -> Iterator[dict[str, Any] | Reconnected]:
        first = True
        for event in self.follow(response_id, starting_after):
            if first:
                yield Reconnected(starting_after)
                first = False
            yield event

    def cancel(self, response_id: str) -> dict[str, Any]:
        answer = self._http.post(f"/responses/{response_id}/cancel")
        _check(answer)
        return answer.json()

    def frames(self, method: str, path: str, **options: Any) -> Iterator[bytes]:
        """The frames of a stream as they came, without the comments between them. Raises httpx.TransportError."""
        with self._http.stream(method, path, **options) as answer:
            if answer.is_error:
                answer.read()
            _check(answer)
            for frame in _frames(answer.iter_bytes()):
                if not frame.startswith(b":"):
                    yield frame

    def _stream(self, method: str, path: str, **options: Any) -> Iterator[dict[str, Any]]:
        for frame in self.frames(method, path, **options):
            if (event := event_of(frame)) is not None:
                yield event


def event_of(frame: bytes) -> dict[str, Any] | None:
    """The event in a frame; None for the mark at a stream's end."""
    data = next((line[6:] for line in frame.split(b"\n") if line.startswith(b"data: {")), None)
    return None if data is None else json.loads(data)


def cursor(starting_after: int) -> dict[str, Any]:
    """The query of a stream of what comes after this event; -1 for all of it."""
    return {"stream": "true"} if starting_after < 0 else {"stream": "true", "starting_after": starting_after}


def _check(answer: httpx.Response) -> None:
    if answer.status_code == 503:
        raise httpx.TransportError("the API cannot reach its database")  # as good as away: it will be back
    if answer.is_error:
        try:
            message = answer.json()["error"]["message"]
        except (ValueError, KeyError, TypeError):
            message = f"HTTP {answer.status_code}"
        if answer.status_code == 401:
            message += " OUTLAST_API_KEY is what this command sends."
        raise ClientError(message)


def _frames(chunks: Iterator[bytes]) -> Iterator[bytes]:
    """Whole frames, each with the empty line that ends it; what a lost connection has cut off is dropped.

    Split at newlines only: a text splitter would also cut at characters that JSON may hold."""
    rest = b""
    for chunk in chunks:
        *frames, rest = (rest + chunk).split(b"\n\n")
        yield from (frame + b"\n\n" for frame in frames)
