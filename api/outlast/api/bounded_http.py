"""A client's connection, with an end to its requests' heads, its silence and its slowness: uvicorn knows none.

It speaks HTTP/1.1 and WebSocket. A request to go on with another protocol is answered as if it had not asked.
"""

from __future__ import annotations

import asyncio
import sys

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from outlast.shared.wire import to_json

from .answer_headers import FOR_BROWSERS
from .errors import error_body

MAX_HEAD_BYTES = 65_536
MAX_DISCARDED_BYTES = 64 * 2**20  # of a body that comes after its answer
PATIENCE_SECONDS = 60.0  # with a client that owes bytes of its request
DEADLINE_SECONDS = 300.0  # for all bytes of a request: 16 MB at 0.5 Mbit/s


class HeadTooLarge(Exception):
    """The request's line, headers and trailers are longer than MAX_HEAD_BYTES."""


class BoundedHttp(HttpToolsProtocol):
    """Uvicorn's protocol. What is no HTTP gets OpenAI's error body here, since no route ever sees it."""

    _head = 0
    _unread = 0
    """Bytes since the parser last had something to say: it gathers what has no end by itself."""
    _receiving = False
    _began: float | None = None
    """When the first byte came of what is not complete yet."""
    _discarded = 0
    _fed = b""
    _to_feed = b""
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
        if self._began is None:
            self._began = self.loop.time()
        self._to_feed = data
        while self._to_feed:
            self._fed, self._to_feed = self._to_feed, b""
            super().data_received(self._fed)
        self._fed = b""
        if self.transport.is_closing():
            return
        if self._unread > MAX_HEAD_BYTES + len(data):
            self._refuse_head()
        elif not self._answering():
            self._wait()

    def on_message_begin(self) -> None:
        self._head, self._receiving, self._discarded, self._began = 0, True, 0, self.loop.time()
        super().on_message_begin()

    def on_url(self, url: bytes) -> None:
        self._count(len(url))
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        self._count(len(name) + len(value))
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        if not self._asks_for_another_protocol():
            super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        self._unread = 0
        super().on_body(body)
        if self.cycle.response_complete:
            self._discarded += len(body)
            if self._discarded > MAX_DISCARDED_BYTES:
                self.transport.close()

    def on_message_complete(self) -> None:
        if self._asks_for_another_protocol():
            return
        self._unread, self._receiving, self._began = 0, False, None
        super().on_message_complete()

    def _asks_for_another_protocol(self) -> bool:
        return self.parser.should_upgrade() and self.parser.get_method() != b"CONNECT" and not self._should_upgrade()

    def _unsupported_upgrade_warning(self) -> None:
        """Parse the request again without its Upgrade, which the parser takes for the end of it.

        Uvicorn calls this while it handles what the parser raised, whose argument says where it stopped.
        """
        stopped = sys.exception()
        if not isinstance(stopped, httptools.HttpParserUpgrade) or not self._asks_for_another_protocol():
            return
        head = [self.parser.get_method(), b" ", self.url, b" HTTP/", self.parser.get_http_version().encode(), b"\r\n"]
        for name, value in self.headers:
            if name != b"upgrade":
                head += [name, b": ", value, b"\r\n"]
        self._to_feed = b"".join([*head, b"\r\n", self._fed[stopped.args[0] :]])
        self.parser = httptools.HttpRequestParser(self)
        self.parser.set_dangerous_leniencies(lenient_data_after_close=True)  # as uvicorn makes it

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
            limits = [b"%b: %b\r\n" % header for header in FOR_BROWSERS]
            self.transport.write(b"".join([head.encode(), *limits, b"connection: close\r\n\r\n", body]))
        self.transport.close()

    def _answering(self) -> bool:
        cycle = self.cycle
        return self._begun() and not cycle.response_complete and (cycle.response_started or not cycle.more_body)

    def _begun(self) -> bool:
        return self.cycle is not None  # type: ignore[redundant-expr] — before the first request there is none

    def _wait(self) -> None:
        left = PATIENCE_SECONDS if self._began is None else self._began + DEADLINE_SECONDS - self.loop.time()
        self._timer = self.loop.call_later(max(min(left, PATIENCE_SECONDS), 0), self._overdue)

    def _stop_waiting(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _overdue(self) -> None:
        if self.transport.is_closing() or self._answering():
            return
        if self.flow.read_paused:  # it is not the client who keeps us waiting
            self._timer = self.loop.call_later(PATIENCE_SECONDS, self._overdue)
        elif self._receiving and not self._answered():
            late = self._began is not None and self.loop.time() >= self._began + DEADLINE_SECONDS
            which, seconds = (
                ("The request", DEADLINE_SECONDS) if late else ("The rest of the request", PATIENCE_SECONDS)
            )
            self._refuse(
                "408 Request Timeout", f"{which} did not come within {seconds:.0f} seconds.", "request_timeout"
            )
        else:
            self.transport.close()

    def _answered(self) -> bool:
        """Whether the request whose body is coming has its answer already."""
        return self._begun() and self.cycle.scope is self.scope and self.cycle.response_complete
