"""One campaign: clients at work, blows of three kinds at the same time, then peace, and the judgement."""

from __future__ import annotations

import asyncio
import random
import re
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import psycopg

from tests.chaos import ledger, logs
from tests.chaos.checker import judge
from tests.chaos.checker.evidence import Evidence, gather
from tests.chaos.checker.violations import Violation
from tests.chaos.clients import Crowd
from tests.chaos.nemeses import PROCESSES, Diary, Strike
from tests.chaos.outages import NETWORKS, SERVERS
from tests.chaos.report import Report
from tests.chaos.world import World

SETTLE_SECONDS = 180.0
_PROGRESS_SECONDS = 10.0
_OPEN = "SELECT count(*) FROM outlast.runs WHERE status IN ('queued', 'in_progress')"


@dataclass(frozen=True, slots=True)
class Rhythm:
    """A kind of blow, and how many leases lie between one and the next."""

    strikes: Sequence[tuple[int, Strike]]
    least: float
    most: float
    outage: bool
    """It hits servers and networks. They are well every now and then, and processes die one at a time: how soon the
    death of one alone is mended shows only then."""


_RHYTHMS = (
    Rhythm(PROCESSES, 0.2, 1.0, outage=False),
    Rhythm(NETWORKS, 0.3, 1.5, outage=True),
    Rhythm(SERVERS, 1.0, 4.0, outage=True),
)
_OUTAGES, _PEACE = 8.0, 6.0  # leases, by turns
_APART = 1.0  # leases more between two blows in peace


class Campaign:
    def __init__(self, world: World, seed: int, say: Callable[[str], None]) -> None:
        self._world = world
        self._seed = seed
        self._say = say
        self._crowd = Crowd(world.urls, seed)
        self._diary = Diary(random.Random(f"{seed} blows"))
        self._began = time.monotonic()

    async def run(self, seconds: float) -> Report:
        self._say(f"seed {self._seed}: {self._world.size.clients} clients for {seconds:g} s")
        clients = asyncio.create_task(self._crowd.live(self._world.size.clients))
        telling = asyncio.create_task(self._tell())
        try:
            await self._strike(seconds)
            self._crowd.over = True
            await self._world.heal()
            await self._settle(clients)
        finally:
            telling.cancel()
            clients.cancel()
            await asyncio.gather(telling, clients, return_exceptions=True)
        evidence = await asyncio.to_thread(self._gather)
        faults = [Violation("fault", "", sentence) for sentence in logs.faults(self._world.logs())]
        found = [*faults, *self._crowd.violations, *await asyncio.to_thread(judge, evidence)]
        causes = Counter(re.findall(r'"cause": "(\w+)", "event": "run\.', self._world.said()))
        return Report(
            self._seed, seconds, self._diary.blows, evidence, found, self._crowd.hops, causes, self._world.size
        )

    async def _strike(self, seconds: float) -> None:
        streams = [
            asyncio.create_task(self._keep_striking(random.Random(f"{self._seed} rhythm {number}"), rhythm))
            for number, rhythm in enumerate(_RHYTHMS)
        ]
        done, _ = await asyncio.wait(streams, timeout=seconds, return_when=asyncio.FIRST_EXCEPTION)
        for stream in streams:
            stream.cancel()
        await asyncio.gather(*streams, return_exceptions=True)
        for stream in done:
            stream.result()

    async def _keep_striking(self, chance: random.Random, rhythm: Rhythm) -> None:
        """Each of its strikes once, in any order; then the likelier ones more often."""
        weights, choices = zip(*rhythm.strikes, strict=True)
        not_yet = chance.sample(choices, len(choices))
        while True:
            await asyncio.sleep(self._world.size.lease_seconds * chance.uniform(rhythm.least, rhythm.most))
            if self._leases() % (_OUTAGES + _PEACE) > _OUTAGES:
                if rhythm.outage:
                    continue
                await asyncio.sleep(_APART * self._world.size.lease_seconds)
            strike = not_yet.pop() if not_yet else chance.choices(choices, weights)[0]
            try:
                await strike(self._world, self._diary)
            except (OSError, psycopg.Error):  # what it aims at is away just now, by another blow
                continue

    def _leases(self) -> float:
        """How long it has lasted."""
        return (time.monotonic() - self._began) / self._world.size.lease_seconds

    async def _settle(self, clients: asyncio.Task[None]) -> None:
        """Everybody works again: in so much time everything must have ended."""
        deadline = time.monotonic() + SETTLE_SECONDS
        await asyncio.wait({clients}, timeout=SETTLE_SECONDS)
        while time.monotonic() < deadline and (await self._world.admin(_OPEN)) != [(0,)]:
            await asyncio.sleep(self._world.size.beat_seconds)

    async def _tell(self) -> None:
        while True:
            await asyncio.sleep(_PROGRESS_SECONDS)
            watched = self._crowd.watched
            ended = sum(seen.ended for seen in watched)
            self._say(
                f"{time.monotonic() - self._began:5.0f} s  {len(watched)} runs, {ended} seen to their end, "
                f"{len(self._diary.blows)} blows, {self._crowd.hops} hops, {len(self._crowd.violations)} complaints"
            )

    def _gather(self) -> Evidence:
        return gather(self._world.database_url, self._crowd.watched, ledger.read(self._world.ledger))


def complaints(violations: Sequence[Violation], most: int = 30) -> str:
    """The violations, for a reader."""
    more = [f"… and {len(violations) - most} more"] if len(violations) > most else []
    return "\n".join([*map(str, violations[:most]), *more])
