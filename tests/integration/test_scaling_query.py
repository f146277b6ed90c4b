"""The query that KEDA asks counts what waits and what runs, and costs no more for a long queue or a long history."""

from __future__ import annotations

from typing import Any

import yaml

from outlast.shared.connections import Connection, Database
from tests.support.bulk import fill, work_on
from tests.support.deployment.kubernetes_rules import FOLDER
from tests.support.runs import claimed, finish, put_back

COUNTED_MOST = 10_000


def query() -> bytes:
    scaled, _ = yaml.safe_load_all((FOLDER / "overlays/example/scaling.yaml").read_text("utf-8"))
    return scaled["spec"]["triggers"][0]["metadata"]["query"].encode()


async def counted(connection: Connection) -> int:
    row = await (await connection.execute(query())).fetchone()
    assert row is not None
    return int(row[0])


async def test_it_counts_what_is_ready_and_what_runs(database: Database) -> None:
    assert await database.run(counted) == 0
    await database.run(lambda c: fill(c, 5))
    ended, delayed, _ = await claimed(database, limit=3)
    assert await database.run(counted) == 5
    await finish(database, ended, 2)
    await put_back(database, delayed)
    assert await database.run(counted) == 3


async def test_it_reads_no_more_than_it_counts(database: Database) -> None:
    async def explained(connection: Connection) -> Any:
        await connection.execute("ANALYZE outlast.runs")
        row = await (await connection.execute(b"EXPLAIN (FORMAT JSON) " + query())).fetchone()
        assert row is not None
        return row[0]

    await database.run(lambda c: fill(c, 2 * COUNTED_MOST))
    plan = await database.run(explained)
    scans, _ = await database.run(lambda c: work_on(c, "runs"))
    assert await database.run(counted) == COUNTED_MOST
    assert (await database.run(lambda c: work_on(c, "runs")))[0] == scans, "it read the whole table"
    assert indexes(plan) == {"runs_claim", "runs_running"}


def indexes(plan: Any) -> set[str]:
    """Every index that a plan uses."""
    if isinstance(plan, list):
        return set().union(*(indexes(part) for part in plan))
    if not isinstance(plan, dict):
        return set()
    own = {plan["Index Name"]} if "Index Name" in plan else set[str]()
    return own.union(*(indexes(part) for part in plan.values()))
