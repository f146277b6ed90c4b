"""Asking the broker about itself. Nothing is written, and no error of the driver is repeated: it may quote the URL."""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import Sequence
from typing import Any

from redis.exceptions import AuthenticationError, NoPermissionError, RedisError

from outlast.shared.broker import BrokerUnavailable, asking, client, key_prefix
from outlast.shared.doorbell import broker_queue

from .broker import BrokerFacts

_CONNECT_SECONDS = 2.0
_ANSWER_SECONDS = 3.0


class BrokerError(Exception):
    """The broker cannot be asked; the message is fit to be shown."""


async def ask_broker(redis_url: str, *, schema: str, queues: Sequence[str]) -> BrokerFacts:
    """Raises BrokerError and BrokerUnfit."""
    try:
        opened = client(
            redis_url,
            socket_connect_timeout=_CONNECT_SECONDS,
            socket_timeout=_ANSWER_SECONDS,
            tries=1,
        )
    except (ValueError, TypeError, RedisError):
        raise BrokerError("REDIS_URL has an option that redis-py does not understand") from None
    try:
        with asking():
            async with opened:
                return await _ask(opened, schema, queues)
    except BrokerUnavailable as error:
        if error.unfit is not None:
            raise error.unfit from None
        raise BrokerError(_reason(error.__cause__ or error)) from None


async def _ask(redis: Any, schema: str, queues: Sequence[str]) -> BrokerFacts:
    await redis.ping()
    loop = asyncio.get_running_loop()
    began, local = loop.time(), time.time()
    seconds, microseconds = await redis.time()
    took = loop.time() - began
    try:
        info: dict[str, Any] = await redis.info()
    except NoPermissionError:
        info = {}
    lengths = [await redis.llen(f"{key_prefix(schema)}{broker_queue(schema, queue)}") for queue in queues]
    return BrokerFacts(
        name="Valkey" if info.get("server_name") == "valkey" else "Redis",
        version=info.get("valkey_version") or info.get("redis_version"),
        seconds=took,
        policy=info.get("maxmemory_policy"),
        used_bytes=info.get("used_memory", 0),
        most_bytes=info.get("maxmemory", 0),
        is_replica=info.get("role") == "slave",
        clock_ahead_seconds=int(seconds) + int(microseconds) / 1e6 - (local + took / 2),
        bells=dict(zip(queues, lengths, strict=True)),
    )


def _reason(error: BaseException) -> str:
    if isinstance(error.__context__, ssl.SSLCertVerificationError):
        return "its certificate is not one that this machine trusts (ssl_ca_certs names others)"
    if isinstance(error, AuthenticationError) or isinstance(error.__cause__, AuthenticationError):
        return "it refuses the user or the password"
    if isinstance(error, TimeoutError) or "timeout" in type(error).__name__.lower():
        return "it does not answer in time"
    if isinstance(error, NoPermissionError):
        return "its user may not use PING, TIME and LLEN"
    return f"no connection ({type(error.__cause__ or error).__name__})"
