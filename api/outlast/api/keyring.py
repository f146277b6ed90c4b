"""The keys that this replica has seen lately, and looking up the others.

A request with a known key costs a digest and a look into a dictionary. Keys that are not known wait for one statement
that looks up all of them, so that a flood of wrong keys takes one connection of the pool and no more.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from itertools import islice
from uuid import UUID

import structlog

from outlast.shared.background import Background
from outlast.shared.connections import Database
from outlast.shared.domain.errors import Unauthenticated
from outlast.shared.domain.keys import Identity, KeyState, digest_of, is_key
from outlast.shared.store import keys

log = structlog.get_logger()

KNOWN_SECONDS = 5.0
"""How long a key that has been revoked or has expired is still taken by a replica that knows it."""
_UNKNOWN_SECONDS = 1.0
_MOST_KNOWN = 20_000  # about 10 MB
_MOST_UNKNOWN = 2_000
_DIGESTS_A_STATEMENT = 500
_TOUCH_PAUSE_SECONDS = 1.0

# Unknown and revoked are told in the same words: which of the two a key is would help whoever tries keys.
WRONG = "The API key is mistyped, revoked, or of another server. `outlast keys create NAME` makes a new one."
EXPIRED = "The API key has expired. `outlast keys create NAME` makes a new one."

Verdict = Identity | str
"""Who the key lets in, or why it does not."""


class Remembered:
    """Verdicts for some seconds: the oldest go when their time is over or there are too many."""

    def __init__(self, *, seconds: float, most: int) -> None:
        self._seconds = seconds
        self._most = most
        self._verdicts: dict[bytes, tuple[float, Verdict]] = {}

    def __len__(self) -> int:
        return len(self._verdicts)

    def get(self, digest: bytes, now: float) -> Verdict | None:
        kept = self._verdicts.get(digest)
        return kept[1] if kept is not None and now < kept[0] else None

    def put(self, digest: bytes, verdict: Verdict, now: float) -> None:
        self._verdicts.pop(digest, None)  # so that they stand in the order in which they end
        self._verdicts[digest] = (now + self._seconds, verdict)
        while len(self._verdicts) > self._most or self._ends_first()[1] <= now:
            del self._verdicts[self._ends_first()[0]]

    def _ends_first(self) -> tuple[bytes, float]:
        digest = next(iter(self._verdicts))
        return digest, self._verdicts[digest][0]


class Keyring:
    def __init__(self, database: Database) -> None:
        self._database = database
        self._now = asyncio.get_running_loop().time
        self._known = Remembered(seconds=KNOWN_SECONDS, most=_MOST_KNOWN)
        self._unknown = Remembered(seconds=_UNKNOWN_SECONDS, most=_MOST_UNKNOWN)  # apart: they must not drive out keys
        self._wanted: dict[bytes, asyncio.Future[Verdict]] = {}
        self._something_wanted = asyncio.Event()
        self._used: set[UUID] = set()
        self._something_used = asyncio.Event()

    @asynccontextmanager
    async def running(self) -> AsyncGenerator[Keyring]:
        loops = Background()
        loops.start(self._look_up_forever())
        loops.start(self._touch_forever())
        try:
            yield self
        finally:
            await loops.cancel()

    async def identify(self, key: str) -> Identity:
        """Who has this key. Raises Unauthenticated, and Unavailable when the database cannot be asked."""
        if not is_key(key):
            raise Unauthenticated(WRONG)
        digest, now = digest_of(key), self._now()
        verdict = self._known.get(digest, now) or self._unknown.get(digest, now) or await self._look_up(digest)
        if isinstance(verdict, Identity):
            return verdict
        raise Unauthenticated(verdict)

    async def _look_up(self, digest: bytes) -> Verdict:
        answer = self._wanted.get(digest)
        if answer is None:
            answer = self._wanted[digest] = asyncio.get_running_loop().create_future()
            self._something_wanted.set()
        return await asyncio.shield(answer)  # others may wait for it too

    async def _look_up_forever(self) -> None:
        while True:
            await self._something_wanted.wait()
            await self.look_up_once()

    async def look_up_once(self) -> None:
        """One statement for all keys that requests wait for."""
        wanted = dict(islice(self._wanted.items(), _DIGESTS_A_STATEMENT))
        try:
            found = await self._database.run(lambda c: keys.find(c, list(wanted)))
        except Exception as error:  # noqa: BLE001 — each request that waits answers with it
            for answer in self._taken(wanted):
                answer.set_exception(error)
            return
        now = self._now()
        verdicts = {digest: self._judge(found.get(digest)) for digest in wanted}
        for digest, verdict in verdicts.items():
            (self._known if isinstance(verdict, Identity) else self._unknown).put(digest, verdict, now)
        for answer, verdict in zip(self._taken(wanted), verdicts.values(), strict=True):
            answer.set_result(verdict)

    def _taken(self, wanted: dict[bytes, asyncio.Future[Verdict]]) -> list[asyncio.Future[Verdict]]:
        for digest in wanted:
            del self._wanted[digest]
        if not self._wanted:
            self._something_wanted.clear()
        return list(wanted.values())

    def _judge(self, found: keys.Found | None) -> Verdict:
        if found is None or found.state is KeyState.REVOKED:
            return WRONG
        if found.state is KeyState.EXPIRED:
            return EXPIRED
        if found.to_touch:
            self._used.add(found.key_id)
            self._something_used.set()
        return found.identity

    async def _touch_forever(self) -> None:
        while True:
            await self._something_used.wait()
            await asyncio.sleep(_TOUCH_PAUSE_SECONDS)
            await self.touch_once()

    async def touch_once(self) -> None:
        """Write down which keys are in use. What cannot be written now is found again at their next look-up."""
        self._something_used.clear()
        used, self._used = self._used, set()
        try:
            await self._database.run(lambda c: keys.touch(c, list(used)))
        except Exception as error:  # noqa: BLE001 — nothing depends on it, and the loop goes on
            log.warning("keys.not_touched", keys=len(used), error=type(error).__name__)
