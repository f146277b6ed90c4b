"""What `outlast doctor` would say here, looked up at most once in a while however many ask."""

from __future__ import annotations

import asyncio

from outlast.shared.doctor.examination import Examination, examine
from outlast.shared.settings import Settings

_KEPT_SECONDS = 10.0


class Examinations:
    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._looking = asyncio.Lock()
        self._latest: Examination | None = None
        self._looked_at = 0.0

    async def latest(self) -> Examination:
        """Not older than ten seconds. On connections of its own: those of the replica may be what is wrong."""
        async with self._looking:
            now = asyncio.get_running_loop().time()
            if self._latest is None or now - self._looked_at >= _KEPT_SECONDS:
                self._latest = await examine(self._settings)
                self._looked_at = asyncio.get_running_loop().time()
            return self._latest
