"""The one door to Redis: clients are made here, and what they and the event loops raise becomes one error of ours."""

from __future__ import annotations

import asyncio
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

from redis import Redis as BlockingRedis
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import MovedError, RedisError, ResponseError

from .dead_transports import is_dead_transport
from .domain.errors import OutlastError

_CHECK_SECONDS = 2.0
_NO_SUCH_DATABASE = ("db index is out of range", "invalid db index", "select is not allowed in cluster mode")


class BrokerUnfit(OutlastError):
    """The broker is reached, and can never do what Outlast asks of it."""

    def __init__(self, seen: str, fix: str) -> None:
        super().__init__(f"{seen}. {fix}")
        self.seen = seen
        self.fix = fix


class BrokerUnavailable(OutlastError):
    """The broker did not do what it was asked."""

    def __init__(self, cause: BaseException) -> None:
        super().__init__()
        self.cause = type(cause).__name__
        """Its words may quote an address."""
        self.unfit = unfitness(cause)
        """Set when no later try can succeed."""


def unfitness(error: BaseException) -> BrokerUnfit | None:
    """What an error says of a broker that answers and will not serve; None for one that may serve later."""
    if error.__cause__ is not None and (found := unfitness(error.__cause__)):  # Celery hides it in one of its own
        return found
    if isinstance(error, MovedError):
        return BrokerUnfit(
            "REDIS_URL names a node of a Redis cluster, and another node holds the keys of this Outlast",
            "Let REDIS_URL name an address that serves all keys: a Redis or Valkey without cluster mode, a cluster of "
            "one node, or an endpoint or proxy in front of all its nodes",
        )
    if isinstance(error, ResponseError) and str(error).lower().startswith(_NO_SUCH_DATABASE):
        return BrokerUnfit(
            "REDIS_URL names a database by a number that the server does not have",
            "Let it end with /0: a Redis in cluster mode has no other",
        )
    return None


def key_prefix(schema: str) -> str:
    """What all keys of one Outlast begin with: two may share a Redis, and in a cluster all keys lie in one slot."""
    return f"{{{schema}}}:"


@contextmanager
def asking() -> Generator[None]:
    """Within it a client is used. Raises BrokerUnavailable whatever keeps Redis from answering, on either loop."""
    try:
        yield
    except (RedisError, OSError) as error:
        raise BrokerUnavailable(error) from error
    except RuntimeError as error:
        if not is_dead_transport(error):
            raise
        raise BrokerUnavailable(error) from error


def client(redis_url: str, *, tries: int | None = None, **options: Any) -> Any:
    """``tries``: of one command whose connection fails; None: as many as redis-py makes."""
    if tries is not None:
        options["retry"] = Retry(NoBackoff(), tries - 1)
    return Redis.from_url(redis_url, **options)  # pyright: ignore[reportUnknownMemberType] — its options have no types


def blocking_client(redis_url: str, **options: Any) -> Any:
    return BlockingRedis.from_url(redis_url, **options)  # pyright: ignore[reportUnknownMemberType] — the same


async def check(redis_url: str, schema: str) -> None:
    """Raises BrokerUnfit. Of a broker that does not answer now nothing is said: it may be fit. Writes nothing."""
    try:
        with asking():
            async with asyncio.timeout(_CHECK_SECONDS), client(redis_url, tries=1) as redis:
                await redis.exists(f"{key_prefix(schema)}check")
    except BrokerUnavailable as error:
        if error.unfit is not None:
            raise error.unfit from None
