"""What is done to servers and networks: emptied, killed, restarted, refusing, cut, delayed, silent."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager

from tests.chaos.nemeses import Blow, Diary, Strike
from tests.chaos.world import World
from tests.support.proxy import Mode, Proxy

_TERMINATE = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename <> 'postgres'"


@asynccontextmanager
async def _lasting(blow: Blow) -> AsyncGenerator[None]:
    try:
        yield
    finally:
        blow.until = time.monotonic()


# -- servers -----------------------------------------------------------------------------------------------------------


async def empty_valkey(world: World, diary: Diary) -> None:
    reader, writer = await asyncio.open_unix_connection(str(world.valkey.socket))
    writer.write(b"FLUSHALL\r\n")
    await reader.readline()
    writer.close()
    diary.outage("flush valkey", "valkey")


async def kill_valkey(world: World, diary: Diary) -> None:
    async with _lasting(diary.outage("kill valkey", "valkey")):
        await asyncio.to_thread(world.valkey.kill)
        await asyncio.sleep(diary.chance.uniform(0, world.size.lease_seconds))
        await asyncio.to_thread(world.valkey.start)


async def restart_postgres(world: World, diary: Diary) -> None:
    async with _lasting(diary.outage("restart postgres", "postgres")):
        await asyncio.to_thread(world.postgres.stop)
        await asyncio.to_thread(world.postgres.start)


async def kill_postgres(world: World, diary: Diary) -> None:
    async with _lasting(diary.outage("kill postgres", "postgres")):
        await asyncio.to_thread(world.postgres.kill)
        await asyncio.sleep(diary.chance.uniform(0, world.size.lease_seconds / 2))
        await asyncio.to_thread(world.postgres.start)


async def kill_backends(world: World, diary: Diary) -> None:
    diary.outage("kill backends", "postgres")
    await world.admin(f"{_TERMINATE} AND random() < {diary.chance.choice((0.3, 1.0))}")


async def refuse_logins(world: World, diary: Diary) -> None:
    """Of everybody or of one, for less or more than a lease."""
    members = [member.name for member in world.members]
    refused = diary.chance.choice((members, [diary.chance.choice(members)]))
    seconds = world.size.lease_seconds * diary.chance.choice((0.5, 1.5))
    async with _lasting(diary.outage("refuse logins", " ".join(refused) if len(refused) == 1 else "all")):
        try:
            for name in refused:
                await world.admin(f"ALTER ROLE {name} NOLOGIN")
            names = ", ".join(f"'{name}'" for name in refused)
            await world.admin(f"{_TERMINATE} AND usename IN ({names})")
            await asyncio.sleep(seconds)
        finally:
            for name in refused:
                await world.admin(f"ALTER ROLE {name} LOGIN")


# -- networks ----------------------------------------------------------------------------------------------------------


async def cut(world: World, diary: Diary) -> None:
    name, proxy = _network(world, diary)
    diary.outage("cut", name)
    proxy.cut()


async def delay(world: World, diary: Diary) -> None:
    name, proxy = _network(world, diary)
    async with _lasting(diary.outage("delay", name)):
        proxy.delay_seconds = diary.chance.choice((0.02, 0.2))
        try:
            await asyncio.sleep(_a_while(world, diary))
        finally:
            proxy.delay_seconds = 0


async def silence(world: World, diary: Diary) -> None:
    """Nothing comes through any more, one way or both; then all of it does, or the connections are gone."""
    mode = diary.chance.choice((Mode.BLACK_HOLE, Mode.DEAF, Mode.MUTE, Mode.REFUSE))
    name, proxy = _network(world, diary)
    async with _lasting(diary.outage(mode.value, name)):
        proxy.mode = mode
        try:
            if mode is Mode.REFUSE:
                proxy.cut()
            await asyncio.sleep(_a_while(world, diary))
            if diary.chance.random() < 0.5:
                proxy.cut()
        finally:
            proxy.mode = Mode.PASS


async def lose_answers(world: World, diary: Diary) -> None:
    """The server does what it is told, and the connection is lost in place of its answer, time and again."""
    name, proxy = _network(world, diary)
    async with _lasting(diary.outage("lose answers", name)):
        proxy.watch = lambda: lambda _piece: diary.chance.random() < 0.03
        proxy.cut()
        try:
            await asyncio.sleep(_a_while(world, diary))
        finally:
            proxy.watch = None
            proxy.cut()


def _network(world: World, diary: Diary) -> tuple[str, Proxy]:
    """Postgres' networks are broken more often than the others."""
    names = sorted(world.networks)
    name = diary.chance.choice(names + 2 * [name for name in names if name.endswith("postgres")])
    return name, world.networks[name]


def _a_while(world: World, diary: Diary) -> float:
    return world.size.lease_seconds * diary.chance.choice((0.2, 0.6, 1.5))


SERVERS: Sequence[tuple[int, Strike]] = (
    (2, empty_valkey),
    (2, kill_valkey),
    (2, restart_postgres),
    (1, kill_postgres),
    (4, kill_backends),
    (2, refuse_logins),
)
NETWORKS: Sequence[tuple[int, Strike]] = ((3, cut), (2, delay), (4, silence), (2, lose_answers))
