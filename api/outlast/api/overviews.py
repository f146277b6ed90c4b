"""The overview of queues and workers, read at most once a second however many look at it."""

from __future__ import annotations

import asyncio
import math
import time

from outlast.shared.connections import Database
from outlast.shared.domain.errors import OutlastError, Unavailable
from outlast.shared.rest import Rest
from outlast.shared.settings import Settings
from outlast.shared.store import overview
from outlast.shared.store.overview import Overview

_KEPT_SECONDS = 1.0
_SUBMITTED_SECONDS = 10.0
_PATIENCE_SECONDS = 3.0  # less than a monitor's own


class Overviews:
    def __init__(self, database: Database, settings: Settings, rest: Rest) -> None:
        self._database = database
        self._rest = rest
        self._beat_seconds = settings.beat_seconds
        self._reading = asyncio.Lock()
        self._latest: Overview | OutlastError | None = None
        self._read_at = -math.inf

    async def latest(self) -> Overview:
        """Not older than a second; of a process that rests, not older than its rest.

        Raises Unavailable, also while the last try is not older than that.
        """
        async with self._reading:
            now = time.monotonic()
            kept_since = self._rest.since if self._rest.resting else now - _KEPT_SECONDS
            if self._latest is None or self._read_at <= kept_since:
                self._latest = await self._read()
                self._read_at = time.monotonic()
            if isinstance(self._latest, OutlastError):
                raise self._latest
            return self._latest

    async def _read(self) -> Overview | OutlastError:
        try:
            async with asyncio.timeout(_PATIENCE_SECONDS):
                return await self._database.run(
                    lambda c: overview.read(c, submitted_seconds=_SUBMITTED_SECONDS, beat_seconds=self._beat_seconds),
                    patience_seconds=_PATIENCE_SECONDS / 2,  # a restarted database has left dead connections behind
                )
        except TimeoutError:
            return Unavailable("The database did not answer in time.")
        except OutlastError as error:
            return error
