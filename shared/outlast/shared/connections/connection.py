"""One connection, which a server that has fallen silent cannot hold."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Self, TypeVar

import psycopg
from psycopg.abc import PQGen
from psycopg.pq import TransactionStatus
from psycopg.rows import TupleRow

from outlast.shared.dead_transports import is_dead_transport
from outlast.shared.driver_errors import NoAnswer

T = TypeVar("T")

ANSWER_SECONDS = 6.0  # longer than a statement may take: what has not answered then never will
SOCKET: dict[str, Any] = {
    "connect_timeout": 5,
    "keepalives_idle": 5,
    "keepalives_interval": 2,
    "keepalives_count": 3,
    "tcp_user_timeout": 4000,
}


class Connection(psycopg.AsyncConnection[TupleRow]):
    """One that a server which has fallen silent cannot hold: neither who waits for an answer nor who gives up."""

    answer_seconds: float | None = ANSWER_SECONDS
    """How long one answer is waited for. A piece of work may raise it for itself, with its statement_timeout."""
    made_at = 0.0

    @classmethod
    async def connect(  # pyright: ignore[reportIncompatibleMethodOverride] — we give no other options
        cls, conninfo: str, *, on_failure: Callable[[psycopg.Error], None] = lambda _: None, **options: Any
    ) -> Self:
        try:
            connection = await super().connect(conninfo, **options)
        except psycopg.ProgrammingError:  # it quotes the address, and the password with it
            raise psycopg.OperationalError("its address (DATABASE_URL) is not one that libpq understands") from None
        except psycopg.Error as error:
            on_failure(error)
            raise
        connection.made_at = asyncio.get_running_loop().time()
        return connection

    async def wait(self, gen: PQGen[T], interval: float = 0.1, timeout: float | None = None) -> T:
        try:
            return await super().wait(gen, interval, self.answer_seconds if timeout is None else timeout)
        except RuntimeError as error:
            if is_dead_transport(error):
                raise psycopg.OperationalError("the connection was closed while an answer was waited for") from error
            raise
        except psycopg.OperationalError as error:
            if (
                timeout is not None
                or error.sqlstate is not None
                or self.pgconn.transaction_status != TransactionStatus.ACTIVE
            ):
                raise
            self.pgconn.finish()  # the answer may come yet, when nobody expects it
            raise NoAnswer(f"no answer within {self.answer_seconds:g} s") from None

    async def cancel_safe(self, *, timeout: float = 30.0) -> None:
        """Break the connection off. To have the server cancel takes another connection, and 10 s if it is silent."""
        with suppress(OSError), socket.socket(fileno=os.dup(self.pgconn.socket)) as end:
            end.shutdown(socket.SHUT_RDWR)
