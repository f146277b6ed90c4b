"""No statement of ours is compiled: whatever the server's defaults are, each connection has jit off."""

from __future__ import annotations

from typing import Any
from uuid import uuid4

import psycopg
import pytest
from psycopg.sql import SQL, Identifier

from outlast.infra.migrate import sole_runner
from outlast.shared.connections import PINNED_PLAN, Connection, Database, fixed
from outlast.shared.domain.runs import Lease
from outlast.shared.store import leases, plans
from outlast.shared.store.pinning import BY_INDEX, pin
from tests.support.bulk import fill
from tests.support.waiting import until


@pytest.fixture(autouse=True)
def compiling(database_url: str) -> None:
    """What Debian's servers have by default, said so that only a session can overrule it."""
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute(SQL("ALTER DATABASE {} SET jit = on").format(Identifier(connection.info.dbname)))
        role = SQL("ALTER ROLE {} IN DATABASE {} SET jit = on")
        connection.execute(role.format(Identifier(connection.info.user), Identifier(connection.info.dbname)))
    with psycopg.connect(database_url) as connection:
        assert connection.execute("SHOW jit").fetchone() == ("on",)


async def jit(connection: Connection) -> str:
    row = await (await connection.execute("SHOW jit")).fetchone()
    assert row is not None
    return row[0]


@pytest.mark.parametrize("pin_plan", [True, False])
async def test_no_connection_of_the_door_compiles(database_url: str, pin_plan: bool) -> None:
    database = Database(fixed(database_url), schema="outlast", application="tests", pin_plan=pin_plan, life_seconds=0.2)
    dedicated, pinned = database.dedicated(), database.dedicated(**PINNED_PLAN, statement_timeout="60s")
    try:
        found = [await dedicated.run(jit), await pinned.run(jit)]
    finally:
        await dedicated.close()
        await pinned.close()
    async with await database.connect(statement_timeout="0") as own, sole_runner(database) as migrating:
        found += [await jit(own), await jit(migrating)]
    async with database.pooled(max_connections=1) as pooled:
        pids = set[int]()

        async def another() -> bool:  # than the first: the pool makes them in its own time
            pids.add(await pooled.run(backend))
            return len(pids) > 1

        found.append(await pooled.run(jit))
        await until(another)
        found.append(await pooled.run(jit))
    assert found == ["off"] * 6


async def backend(connection: Connection) -> int:
    return connection.info.backend_pid


async def test_a_pinned_transaction_does_not_compile_where_the_session_would(database: Database) -> None:
    async with await database.connect(jit="on") as connection:
        async with connection.transaction():
            await pin(connection)
            pinned = await jit(connection)
        async with connection.transaction():
            await connection.execute(BY_INDEX)
            by_index = await jit(connection)
        async with connection.transaction():
            await leases.renew(connection, [Lease(uuid4(), 1)], lease_seconds=1)
            renewed = await jit(connection)
        assert [pinned, by_index, renewed, await jit(connection)] == ["off", "off", "off", "on"]


async def test_no_claim_and_no_sweep_of_a_long_queue_is_compiled(database_url: str) -> None:
    """Where the server can: from 14 to 17 each of them is, with the same plan, once jit is on."""
    database = Database(fixed(database_url), schema="outlast", application="tests", pin_plan=True)
    async with await database.connect(statement_timeout="60s") as connection:
        await fill(connection, 1000)
        assert not any([await compiles(connection, statement) for statement in plans.PLANNED.values()])

        await connection.execute("SELECT set_config('jit', 'on', false)")
        if connection.info.server_version < 180_000 and (await plans.compiling(connection)).available:
            assert any([await compiles(connection, statement) for statement in plans.PLANNED.values()])


async def compiles(connection: Connection, statement: Any) -> bool:
    plan = await connection.execute("EXPLAIN (FORMAT JSON) " + statement, plans.VALUES)
    rows = await plan.fetchall()
    return any("JIT" in part for row in rows for part in row[0])
