"""The one door to Redis: clients are made here, and what they and the event loops raise becomes one error of ours."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

from redis import Redis as BlockingRedis
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from .dead_transports import is_dead_transport
from .domain.errors import OutlastError


class BrokerUnavailable(OutlastError):
    """The broker did not do what it was asked."""

    def __init__(self, cause: BaseException) -> None:
        super().__init__()
        self.cause = type(cause).__name__
        """Its words may quote an address."""


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
