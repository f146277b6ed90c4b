"""Users' tokens on their way from a request to the worker that runs it: encrypted, over Redis, for a while.

A token is in no table and in no message: it lies under a key of its run's, encrypted for that run alone, until the run
or the token ends. Losing one is no fault of the run: its agent then acts without the user.
"""

from __future__ import annotations

import asyncio
import base64
import importlib
import json
import math
import os
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from hashlib import sha256
from typing import Any
from uuid import UUID

import structlog

from outlast.agent import Secret

from .background import Background
from .broker import BrokerUnavailable, asking, client, key_prefix
from .domain.errors import Unavailable
from .domain.ids import response_id
from .settings import Settings

log = structlog.get_logger()

_ROUND_SECONDS = 1.0  # a request, and the beginning of an attempt, wait no longer than twice that
_NONCE_BYTES = 12


class _Rounds:
    """Commands for Redis: those that come while others are on their way go together, in the next round.

    One connection each would take a burst of requests seconds.
    """

    def __init__(self, url: str) -> None:
        # Of connections that Redis has dropped the first is noticed by its use: a second try, at once.
        self._redis = client(url, socket_connect_timeout=_ROUND_SECONDS, tries=2)
        self._waiting: list[tuple[tuple[Any, ...], asyncio.Future[Any]]] = []
        self._background = Background()
        self._under_way: asyncio.Task[None] | None = None

    async def ask(self, *command: Any) -> Any:
        """Raises BrokerUnavailable."""
        answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._waiting.append((command, answer))
        if self._under_way is None:
            self._under_way = self._background.start(self._send_all())
        return await answer

    async def _send_all(self) -> None:
        try:
            while self._waiting:
                batch, self._waiting = self._waiting, []
                for (_, answer), got in zip(batch, await self._sent([command for command, _ in batch]), strict=True):
                    if answer.done():  # nobody waits any more
                        continue
                    if isinstance(got, Exception):
                        answer.set_exception(got if isinstance(got, BrokerUnavailable) else BrokerUnavailable(got))
                    else:
                        answer.set_result(got)
        finally:
            self._under_way = None

    async def _sent(self, commands: list[tuple[Any, ...]]) -> list[Any]:
        try:
            with asking():
                async with asyncio.timeout(_ROUND_SECONDS), self._redis.pipeline(transaction=False) as pipeline:
                    for command in commands:
                        pipeline.execute_command(*command)
                    return await pipeline.execute(raise_on_error=False)
        except Exception as error:  # noqa: BLE001 — also what is no answer, and breaks the client: no request waits on
            return [error] * len(commands)

    async def close(self) -> None:
        await self._background.wait(2 * _ROUND_SECONDS)
        with suppress(BrokerUnavailable), asking():
            await self._redis.aclose()


class UserTokens:
    def __init__(self, settings: Settings) -> None:
        self._schema = settings.db_schema
        self._most_seconds = settings.token_seconds
        self._cipher = _cipher(settings)
        self._redis = _Rounds(settings.required_redis_url())
        self._forgetting = Background()

    @asynccontextmanager
    async def open(self) -> AsyncGenerator[UserTokens]:
        try:
            yield self
        finally:
            await self._redis.close()

    @asynccontextmanager
    async def sent(self, run_id: UUID, token: Secret | None) -> AsyncGenerator[None]:
        """Leave the token for whoever will execute the run that is stored within. Never fails for Redis."""
        if token is None or self._cipher is None:
            yield
            return
        await self._put(run_id, token)
        try:
            yield
        except Unavailable:  # it may be stored
            raise
        except Exception:
            self.forget(run_id)
            raise

    async def _put(self, run_id: UUID, token: Secret) -> None:
        text = token.reveal()
        seconds = min(self._most_seconds, _seconds_left(text, time.time()))
        if seconds <= 0:
            return
        nonce = os.urandom(_NONCE_BYTES)
        sealed = nonce + self._cipher.encrypt(nonce, text.encode(), self._key(run_id))
        try:
            await self._redis.ask("SET", self._key(run_id), sealed, "PX", int(seconds * 1000))
        except BrokerUnavailable as error:
            log.warning("token.not_sent", run=response_id(run_id), error=error.cause)

    async def get(self, run_id: UUID) -> Secret | None:
        """The token that came with the run's request, while it lasts. Never fails for Redis."""
        if self._cipher is None:
            return None
        try:
            sealed: bytes | None = await self._redis.ask("GET", self._key(run_id))
        except BrokerUnavailable as error:
            log.warning("token.not_read", run=response_id(run_id), error=error.cause)
            return None
        return self._opened(run_id, sealed) if sealed else None

    def _opened(self, run_id: UUID, sealed: bytes) -> Secret | None:
        nonce, rest = sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:]
        try:
            return Secret(self._cipher.decrypt(nonce, rest, self._key(run_id)).decode())
        except Exception as error:  # noqa: BLE001 — another key's: cryptography, and so its error, is not always loaded
            log.warning("token.not_read", run=response_id(run_id), error=type(error).__name__)
            return None

    def forget(self, run_id: UUID) -> None:
        """The run has ended. Never waits and never fails: what stays ends by itself."""
        if self._cipher is not None:
            self._forgetting.start(self._forget(run_id))

    async def _forget(self, run_id: UUID) -> None:
        with suppress(BrokerUnavailable):
            await self._redis.ask("DEL", self._key(run_id))

    def _key(self, run_id: UUID) -> bytes:
        """Where it lies. It is sealed with it too: what is copied to another run's place cannot be opened there."""
        return f"{key_prefix(self._schema)}user_token:{run_id.hex}".encode()


def _cipher(settings: Settings) -> Any:
    """None without a key, and then nothing of it is loaded: 9 MB in each process."""
    if settings.token_key is None:
        return None
    aead = importlib.import_module("cryptography.hazmat.primitives.ciphers.aead")
    return aead.AESGCM(sha256(b"outlast user token\0" + settings.token_key.get_secret_value().encode()).digest())


def _seconds_left(token: str, now: float) -> float:
    """Until the token ends, if it says so: a JSON Web Token. Whether it is genuine is for those who take it."""
    try:
        _, claims, _ = token.split(".")
        return float(json.loads(base64.urlsafe_b64decode(claims + "=" * (-len(claims) % 4)))["exp"]) - now
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
        return math.inf
