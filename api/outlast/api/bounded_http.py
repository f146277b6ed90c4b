"""A client's connection, with an end to its requests' heads and to its silence: uvicorn waits and reads without one."""

from __future__ import annotations

import asyncio

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from outlast.shared.wire import to_json

from .errors import error_body

MAX_HEAD_BYTES = 65_536
PATIENCE_SECONDS = 60.0  # with a client that owes bytes of its request


class HeadTooLarge(Exception):
    """The request's line, headers and trailers are longer than MAX_HEAD_BYTES."""


class BoundedHttp(HttpToolsProtocol):
    """Uvicorn's protocol. What is no HTTP gets OpenAI's error body here, since no route ever sees it."""

    _head = 0
    _unread = 0
    """Bytes since the parser last had something to say: it gathers what has no end by itself."""
    _receiving = False
    _timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override] — as uvicorn has it
        super().connection_made(transport)
        self._wait()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_waiting()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        self._stop_waiting()
        self._unread += len(data)
        super().data_received(data)
        if self.transport.is_closing():
            return
        if self._unread > MAX_HEAD_BYTES + len(data):
            self._refuse_head()
        elif not self._answering():
            self._wait()

    def on_message_begin(self) -> None:
        self._head, self._receiving = 0, True
        super().on_message_begin()

    def on_url(self, url: bytes) -> None:
        self._count(len(url))
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        self._count(len(name) + len(value))
        super().on_header(name, value)

    def on_body(self, body: bytes) -> None:
        self._unread = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._unread, self._receiving = 0, False
        super().on_message_complete()

    def send_400_response(self, msg: str) -> None:
        if self._head > MAX_HEAD_BYTES:
            self._refuse_head()
        else:
            self._refuse("400 Bad Request", msg, "invalid_http")

    def _count(self, size: int) -> None:
        self._unread = 0
        self._head += size
        if self._head > MAX_HEAD_BYTES:
            raise HeadTooLarge  # the parser stops, and uvicorn asks for the answer to what it cannot read

    def _refuse_head(self) -> None:
        message = f"The request's URL and headers are larger than {MAX_HEAD_BYTES} bytes."
        self._refuse("431 Request Header Fields Too Large", message, "headers_too_large")

    def _refuse(self, status: str, message: str, code: str) -> None:
        if not self._begun() or self.cycle.response_complete or not self.cycle.response_started:
            body = to_json(error_body(message, type="invalid_request_error", code=code)).encode()
            head = f"HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n"
            self.transport.write(f"{head}connection: close\r\n\r\n".encode() + body)
        self.transport.close()

    def _answering(self) -> bool:
        cycle = self.cycle
        return self._begun() and not cycle.response_complete and (cycle.response_started or not cycle.more_body)

    def _begun(self) -> bool:
        return self.cycle is not None  # type: ignore[redundant-expr] — before the first request there is none

    def _wait(self) -> None:
        self._timer = self.loop.call_later(PATIENCE_SECONDS, self._overdue)

    def _stop_waiting(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _overdue(self) -> None:
        if self.transport.is_closing() or self._answering():
            return
        if self.flow.read_paused:  # it is not the client who keeps us waiting
            self._wait()
        elif self._receiving:
            message = f"The rest of the request did not come within {PATIENCE_SECONDS:.0f} seconds."
            self._refuse("408 Request Timeout", message, "request_timeout")
        else:
            self.transport.close()
