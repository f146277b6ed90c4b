"""What is done to processes: killed, stopped for a while, replaced. Each heals what it has done."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field

import psycopg

from tests.chaos.world import Member, World


@dataclass
class Blow:
    """Something that was done to the world."""

    name: str
    target: str
    at: float
    """Of the monotonic clock, as the ledger's times."""
    until: float
    lost: Sequence[int] = ()
    """Processes whose runs had to go on elsewhere."""
    outage: bool = False
    """It hit a server or a network."""
    whole: bool = True
    """No process was missing when it fell, of those that could take its runs."""


@dataclass
class Diary:
    """All blows, in order, and what they are drawn from."""

    chance: random.Random
    blows: list[Blow] = field(default_factory=list[Blow])

    def write(self, name: str, target: str, lost: Iterable[int] = ()) -> Blow:
        now = time.monotonic()
        self.blows.append(Blow(name, target, now, now, list(lost)))
        return self.blows[-1]

    def outage(self, name: str, target: str) -> Blow:
        blow = self.write(name, target)
        blow.outage = True
        return blow


Strike = Callable[[World, Diary], Awaitable[None]]


# -- death -------------------------------------------------------------------------------------------------------------


async def kill_child(world: World, diary: Diary) -> None:
    worker = diary.chance.choice(world.workers)
    if children := worker.children:
        _kill("kill child", worker.name, [diary.chance.choice(children)], world, diary)


async def kill_fork_server(world: World, diary: Diary) -> None:
    worker = diary.chance.choice(world.workers)
    if servers := worker.fork_servers:
        _kill("kill fork server", worker.name, servers, world, diary, lost=worker.children)


async def kill_worker(world: World, diary: Diary) -> None:
    worker = diary.chance.choice(world.workers)
    if worker.pid:
        _kill("kill worker", worker.name, [worker.pid], world, diary, lost=worker.everything)


async def kill_all_workers(world: World, diary: Diary) -> None:
    pids = [worker.pid for worker in world.workers if worker.pid]
    lost = [pid for worker in world.workers for pid in worker.everything]
    _kill("kill all workers", "all", pids, world, diary, lost=lost)


async def kill_api(world: World, diary: Diary) -> None:
    api = diary.chance.choice(world.apis)
    if api.pid:
        _kill("kill api", api.name, [api.pid], world, diary)


async def replace(world: World, diary: Diary) -> None:
    """As a rolling restart does: asked to end, and started again."""
    member = diary.chance.choice(world.members)
    if member.pid:
        _kill("replace", member.name, [member.pid], world, diary, how=signal.SIGTERM)


def _kill(
    name: str,
    target: str,
    pids: Sequence[int],
    world: World,
    diary: Diary,
    *,
    lost: Iterable[int] | None = None,
    how: signal.Signals = signal.SIGKILL,
) -> None:
    blow = diary.write(name, target, (pids if lost is None else lost) if how is signal.SIGKILL else ())
    blow.whole = world.is_whole
    for pid in pids:
        os.kill(pid, how)


# -- sleep -------------------------------------------------------------------------------------------------------------


async def stop_child(world: World, diary: Diary) -> None:
    worker = diary.chance.choice(world.workers)
    if children := worker.children:
        await _stop("stop child", worker, [diary.chance.choice(children)], world, diary)


async def stop_parent(world: World, diary: Diary) -> None:
    """Its children go on, and nobody renews their leases."""
    worker = diary.chance.choice(world.workers)
    if worker.pid:
        await _stop("stop parent", worker, [worker.pid], world, diary)


async def stop_worker(world: World, diary: Diary) -> None:
    worker = diary.chance.choice(world.workers)
    await _stop("stop worker", worker, worker.everything, world, diary)


async def stop_api(world: World, diary: Diary) -> None:
    api = diary.chance.choice(world.apis)
    if api.pid:
        await _stop("stop api", api, [api.pid], world, diary)


async def _stop(name: str, member: Member, pids: Sequence[int], world: World, diary: Diary) -> None:
    seconds = world.size.lease_seconds * diary.chance.choice((0.3, 0.8, 1.5, 2.5))
    # Whoever sleeps longer than its lease loses its runs, unless it is only a child: its parent renews for it.
    loses = seconds > world.size.lease_seconds and member.is_worker and name != "stop child"
    blow = diary.write(name, member.name, member.everything if loses else ())
    blow.whole = world.is_whole
    async with _stopped(pids, world):
        await asyncio.sleep(seconds)
    blow.until = time.monotonic()


@asynccontextmanager
async def _stopped(pids: Sequence[int], world: World) -> AsyncGenerator[None]:
    try:
        for pid in pids:
            world.stopped.add(pid)
            os.kill(pid, signal.SIGSTOP)
        yield
    finally:
        for pid in pids:
            world.stopped.discard(pid)
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)


# -- the leader of the sweep -------------------------------------------------------------------------------------------


async def kill_leader(world: World, diary: Diary) -> None:
    async with _leading(world) as leader:
        if leader and leader.pid:
            lost = leader.everything if leader.is_worker else ()
            _kill("kill leader", leader.name, [leader.pid], world, diary, lost=lost)


async def stop_leader(world: World, diary: Diary) -> None:
    """Within its transaction, with the lock by which it leads."""
    async with _leading(world) as leader:
        if leader is None or leader.pid is None:
            return
        seconds = world.size.lease_seconds * diary.chance.choice((0.5, 1.5))
        blow = diary.write("stop leader", leader.name)
        stopping = asyncio.create_task(_sleep_stopped(leader.pid, seconds, world))
        await asyncio.sleep(0)  # it is stopped now, and what holds it up in its transaction is let go
    try:
        await stopping
    finally:
        blow.until = time.monotonic()


async def _sleep_stopped(pid: int, seconds: float, world: World) -> None:
    async with _stopped([pid], world):
        await asyncio.sleep(seconds)


@asynccontextmanager
async def _leading(world: World) -> AsyncGenerator[Member | None]:
    """Who sweeps, held up in the middle of it by a lock on what it looks at."""
    connection = await psycopg.AsyncConnection.connect(world.database_url)
    async with connection:
        await connection.execute("SET lock_timeout = '300ms'")
        await connection.execute("LOCK TABLE outlast.run_leases IN ACCESS EXCLUSIVE MODE")
        yield await _leader(connection, world)
        await connection.rollback()


async def _leader(connection: psycopg.AsyncConnection, world: World) -> Member | None:
    deadline = time.monotonic() + 1
    while time.monotonic() < deadline:
        cursor = await connection.execute(
            """SELECT a.usename FROM pg_locks l JOIN pg_stat_activity a ON a.pid = l.pid
               WHERE l.locktype = 'advisory' AND l.granted"""
        )
        found = {str(name) for (name,) in await cursor.fetchall()}
        for member in world.members:
            if member.name in found:
                return member
        await asyncio.sleep(world.size.sweep_seconds / 20)
    return None


PROCESSES: Sequence[tuple[int, Strike]] = (
    (6, kill_child),
    (4, kill_worker),
    (2, kill_fork_server),
    (1, kill_all_workers),
    (3, kill_api),
    (2, replace),
    (2, stop_child),
    (3, stop_parent),
    (3, stop_worker),
    (2, stop_api),
    (2, stop_leader),
    (1, kill_leader),
)
"""How often each, in proportion."""
