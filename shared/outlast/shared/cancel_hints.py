"""A word over Redis that a run is to end at once, because it has been cancelled or deleted.

Losing or doubling one is harmless: it is stored in Postgres first, and each worker's beat finds it there. Everybody is
told, and to all but the one who has the run it means nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Any
from uuid import UUID

import structlog
from redis.asyncio import Redis
from redis.exceptions import RedisError

log = structlog.get_logger()

_CONNECT_SECONDS = 1.0
_SEND_SECONDS = 1.0
_QUIET_SECONDS = 10.0  # then a sign of life is asked for
_RETRY_SECONDS = 1.0


class CancelHints:
    def __init__(self, redis_url: str, schema: str) -> None:
        self._channel = f"{schema}:cancelled"
        self._redis: Any = Redis.from_url(  # pyright: ignore[reportUnknownMemberType] — its options have no types
            redis_url, socket_connect_timeout=_CONNECT_SECONDS, decode_responses=True
        )
        self._sending: set[asyncio.Task[None]] = set()

    def send(self, run_ids: Iterable[UUID]) -> None:
        """Tell whoever executes these runs. Never waits and never fails."""
        for run_id in run_ids:
            task = asyncio.create_task(self._send(run_id))
            self._sending.add(task)
            task.add_done_callback(self._sending.discard)

    async def _send(self, run_id: UUID) -> None:
        with suppress(RedisError, OSError, TimeoutError):
            async with asyncio.timeout(_SEND_SECONDS):
                await self._redis.publish(self._channel, run_id.hex)

    async def listen(self, heard: Callable[[UUID], None]) -> None:
        """Call ``heard`` for each run that is told of, until cancelled."""
        while True:
            with suppress(RedisError, OSError, TimeoutError):
                await self._listen(heard)
            await asyncio.sleep(_RETRY_SECONDS)

    async def _listen(self, heard: Callable[[UUID], None]) -> None:
        """Until the connection breaks, or is silent although it was asked for a sign of life."""
        async with self._redis.pubsub() as subscription:
            await asyncio.wait_for(subscription.subscribe(self._channel), _CONNECT_SECONDS)
            asked = False
            while True:
                message = await subscription.get_message(timeout=_QUIET_SECONDS)
                if message is not None:
                    asked = False
                    if message["type"] == "message" and (run_id := _run_id(message["data"])):
                        heard(run_id)
                elif asked:
                    return
                else:
                    await asyncio.wait_for(subscription.ping(), _CONNECT_SECONDS)
                    asked = True

    async def close(self) -> None:
        for task in self._sending:
            task.cancel()
        with suppress(RedisError, OSError):
            await self._redis.aclose()


def _run_id(data: str) -> UUID | None:
    """None for what somebody else has published there."""
    try:
        return UUID(hex=data)
    except ValueError:
        return None
