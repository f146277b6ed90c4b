"""The plans that the statements of claims and sweeps get, which run all the time: for ``outlast doctor``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, LiteralString, cast

from psycopg.rows import class_row

from outlast.shared.connections import Connection

from . import claims, overdue, retries, sweeping
from .pinning import pin

PLANNED: Mapping[str, LiteralString] = {**claims.PLANNED, **sweeping.PLANNED, **retries.PLANNED, **overdue.PLANNED}
"""The index that a statement must use -> the statement, as it is executed."""
VALUES: Mapping[str, Any] = {
    "queue": "default", "limit": 10, "owner": "doctor", "lease_seconds": 1.0, "per_principal": 1, "per_agent": "{}",
    "cause": "lease_expired", "charge": 0, "grace": 1.0, "after": 1.0,
}  # fmt: skip
_GROWING = ("runs", "threads", "run_heads")  # with what has ended; a statement of every beat must not read all of them
_LARGE_BYTES = 2**20  # what is smaller may be read whole


@dataclass(frozen=True, slots=True)
class IndexFacts:
    name: str
    exists: bool
    valid: bool
    used: bool
    """By the statement that needs it."""
    read_whole: Sequence[str] = ()
    """The tables of which this statement reads every row that there is."""


@dataclass(frozen=True, slots=True)
class Compiling:
    """What is left of ``jit = off``, which every connection of ours sets."""

    on: bool
    available: bool
    """The setting is on, and the server has LLVM."""
    user: str
    """Quoted as SQL needs it, as is the database."""
    database: str


async def compiling(connection: Connection) -> Compiling:
    async with connection.cursor(row_factory=class_row(Compiling)) as cursor:
        await cursor.execute(
            """SELECT current_setting('jit')::bool AS "on", pg_jit_available() AS available,
                      quote_ident(current_user) AS "user", quote_ident(current_database()) AS database"""
        )
        [found] = await cursor.fetchall()
    return found


async def indexes(connection: Connection) -> list[IndexFacts]:
    """For each statement of claims and sweeps: whether the plan it gets is by its index, and by no table's whole."""
    cursor = await connection.execute(
        """SELECT c.relname, i.indisvalid FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid
           WHERE c.relnamespace = current_schema()::regnamespace AND c.relname = ANY(%s)""",
        (list(PLANNED),),
    )
    valid: dict[str, bool] = dict(await cursor.fetchall())
    cursor = await connection.execute(
        """SELECT relname FROM pg_class WHERE relnamespace = current_schema()::regnamespace AND relname = ANY(%s)
           AND pg_relation_size(oid) > %s""",
        (list(_GROWING), _LARGE_BYTES),
    )
    large = {row[0] for row in await cursor.fetchall()}
    found: list[IndexFacts] = []
    async with connection.transaction():
        await pin(connection)
        for name, statement in PLANNED.items():
            plan = await connection.execute("EXPLAIN (FORMAT JSON) " + statement, VALUES)
            nodes = _nodes([row[0] for row in await plan.fetchall()])
            used = any(node.get("Index Name") == name for node in nodes)
            whole = sorted(large & {node["Relation Name"] for node in nodes if _reads_whole(node)})
            found.append(IndexFacts(name, name in valid, valid.get(name, False), used, whole))
    return found


def _nodes(plan: Any) -> list[dict[str, Any]]:
    """All nodes of what EXPLAIN gives as JSON."""
    if isinstance(plan, list):
        return [node for part in cast("list[Any]", plan) for node in _nodes(part)]
    if not isinstance(plan, dict):
        return []
    node = cast("dict[str, Any]", plan)
    return ([node] if "Node Type" in node else []) + _nodes(list(node.values()))


def _reads_whole(node: Mapping[str, Any]) -> bool:
    table, way = node.get("Relation Name"), node["Node Type"]
    by_key = way.startswith("Index") and node.get("Index Name") == f"{table}_pkey" and "Index Cond" not in node
    return way == "Seq Scan" or by_key
