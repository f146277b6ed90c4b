"""Words over Redis to all processes: a run is to end at once, because it has been cancelled or deleted; or there is
something to do, and who leaves the database alone is to look at it again.

Losing or doubling one is harmless. A cancel is stored in Postgres first, and each worker's beat finds it there; to all
but the one who has the run it means nothing. Who rests does so only while it can be told (`rest`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Any
from uuid import UUID

import structlog

from .background import Background
from .broker import BrokerUnavailable, asking, blocking_client, client

log = structlog.get_logger()

_CONNECT_SECONDS = 1.0
_SEND_SECONDS = 1.0
_QUIET_SECONDS = 10.0  # then a sign of life is asked for
_RETRY_SECONDS = 1.0
_AWAKE = "awake"


class Hints:
    def __init__(self, redis_url: str, schema: str) -> None:
        self._redis = client(redis_url, socket_connect_timeout=_CONNECT_SECONDS, decode_responses=True)
        self._cancelled, self._awake = _channels(self._redis, schema)
        self._sending = Background()
        self.hearing = False
        """Whether what is told now is heard here."""

    def cancelled(self, run_ids: Iterable[UUID]) -> None:
        """Tell whoever executes these runs. Never waits and never fails."""
        for run_id in run_ids:
            self._send(self._cancelled, run_id.hex)

    def awake(self) -> None:
        """Tell all processes that there is something to do. Never waits and never fails."""
        self._send(self._awake, _AWAKE)

    def _send(self, channel: str, word: str) -> None:
        self._sending.start(self._publish(channel, word))

    async def _publish(self, channel: str, word: str) -> None:
        with suppress(BrokerUnavailable), asking():
            async with asyncio.timeout(_SEND_SECONDS):
                await self._redis.publish(channel, word)

    async def listen(self, *, awake: Callable[[], None], cancelled: Callable[[UUID], None] = lambda _: None) -> None:
        """Call ``cancelled`` for each run that is told of, until cancelled itself.

        ``awake`` is called when that is told, and whenever hearing begins or ends: something may have been missed.
        """
        while True:
            try:
                with suppress(BrokerUnavailable), asking():
                    await self._listen(awake, cancelled)
            except Exception:  # a word that nobody can read; who stopped listening here would also stop renewing leases
                log.exception("hints.broke")
            finally:
                self.hearing = False
            awake()
            await asyncio.sleep(_RETRY_SECONDS)

    async def _listen(self, awake: Callable[[], None], cancelled: Callable[[UUID], None]) -> None:
        """Until the connection breaks, or is silent although it was asked for a sign of life."""
        async with self._redis.pubsub() as subscription:
            async with asyncio.timeout(_CONNECT_SECONDS):
                await subscription.subscribe(self._cancelled, self._awake)
            asked = False
            while True:
                _end_if_cancelled()
                message = await subscription.get_message(timeout=_QUIET_SECONDS)
                if message is not None:
                    asked = False
                    if message["channel"] == self._awake:  # also when the subscription has been made
                        self.hearing = True
                        awake()
                    elif message["type"] == "message" and (run_id := _run_id(message["data"])):
                        cancelled(run_id)
                elif asked:
                    return
                else:
                    async with asyncio.timeout(_CONNECT_SECONDS):
                        await subscription.ping()
                    asked = True

    async def close(self) -> None:
        await self._sending.cancel()
        with suppress(BrokerUnavailable), asking():
            await self._redis.aclose()


def _end_if_cancelled() -> None:
    """The client for Redis swallows a cancel that comes while it connects."""
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError


def tell_awake(redis_url: str, schema: str) -> None:
    """The same as `Hints.awake`, from a process that has none; waits for Redis a moment, and never fails."""
    redis = blocking_client(redis_url, socket_connect_timeout=_CONNECT_SECONDS, socket_timeout=_SEND_SECONDS)
    with suppress(BrokerUnavailable), asking():
        redis.publish(_channels(redis, schema)[1], _AWAKE)
        redis.close()


def _channels(redis: Any, schema: str) -> tuple[str, str]:
    """Keys belong to one of Redis's numbered databases, channels to all of them together."""
    place = f"{schema}:{redis.connection_pool.connection_kwargs.get('db', 0)}"
    return f"{place}:cancelled", f"{place}:awake"


def _run_id(data: str) -> UUID | None:
    """None for what somebody else has published there."""
    try:
        return UUID(hex=data)
    except ValueError:
        return None
