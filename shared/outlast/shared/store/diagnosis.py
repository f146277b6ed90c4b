"""What the database says of itself, for ``outlast doctor``. Nothing here writes.

A role without pg_monitor sees others' sessions without their state: what can be said then is said.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, LiteralString

import psycopg
from psycopg.rows import class_row

from outlast.shared.connections import Connection

MOST = 20
"""No more sessions, slots or transactions than these are named."""


@dataclass(frozen=True, slots=True)
class ServerFacts:
    version: int
    """As in 180003."""
    user: str
    """Quoted where SQL needs it."""
    database: str
    is_superuser: bool
    sees_all_sessions: bool
    in_recovery: bool
    read_only: bool


@dataclass(frozen=True, slots=True)
class Grants:
    """What our user may not do in our schema."""

    user: str
    schema: str
    """Quoted as SQL needs it, both."""
    may_enter: bool
    tables: Sequence[str]
    """On which it lacks one of SELECT, INSERT, UPDATE and DELETE."""


@dataclass(frozen=True, slots=True)
class SessionFacts:
    """Two connections, each asked twice, in turn."""

    same_server: bool
    """Both were answered by one and the same server process."""
    moved: bool
    """One of them was answered by two different server processes."""
    kept_settings: bool
    kept_statements: bool


@dataclass(frozen=True, slots=True)
class Transaction:
    """A session with an open transaction."""

    pid: int
    user: str
    application: str
    database: str
    state: str
    seconds: float
    """Since it began."""
    idle_seconds: float
    """Since its last statement ended, when it is idle in the transaction; else 0."""


@dataclass(frozen=True, slots=True)
class Prepared:
    """A transaction prepared for a two-phase commit."""

    quoted_id: str
    user: str
    seconds: float


@dataclass(frozen=True, slots=True)
class Slot:
    """A replication slot that nobody reads and that keeps old rows."""

    name: str
    quoted_name: str
    transactions: int
    """How many transactions have begun since the oldest that it keeps rows for."""


@dataclass(frozen=True, slots=True)
class TableFacts:
    name: str
    """With its schema, quoted."""
    live: int
    dead: int


@dataclass(frozen=True, slots=True)
class ConnectionFacts:
    used: int
    """In all databases of the server."""
    available: int
    """To users who are not superusers, in all."""
    replicas: int
    """API replicas that listen."""


@dataclass(frozen=True, slots=True)
class OverdueLeases:
    runs: int
    seconds: float
    """How long ago the one that ended first has ended."""


async def server(connection: Connection) -> ServerFacts:
    return await _one(
        connection,
        ServerFacts,
        """SELECT current_setting('server_version_num')::int AS version, quote_ident(current_user) AS "user",
                  current_database()::text AS database, rolsuper AS is_superuser,
                  pg_has_role(current_user, 'pg_read_all_stats', 'USAGE') AS sees_all_sessions,
                  pg_is_in_recovery() AS in_recovery,
                  current_setting('default_transaction_read_only')::bool AS read_only
           FROM pg_roles WHERE rolname = current_user""",
    )


async def grants(connection: Connection, schema: str) -> Grants | None:
    """None when there is no such schema."""
    found = await _all(
        connection,
        Grants,
        """SELECT quote_ident(current_user) AS "user", quote_ident(n.nspname) AS schema,
                  has_schema_privilege(n.oid, 'USAGE') AS may_enter,
                  array(SELECT c.relname::text FROM pg_class c
                        WHERE c.relnamespace = n.oid AND c.relkind IN ('r', 'p')
                        AND c.relname NOT IN ('schema_migrations', 'checkpoint_migrations')
                        AND NOT (has_table_privilege(c.oid, 'SELECT') AND has_table_privilege(c.oid, 'INSERT')
                                 AND has_table_privilege(c.oid, 'UPDATE') AND has_table_privilege(c.oid, 'DELETE'))
                        ORDER BY 1) AS tables
           FROM pg_namespace n WHERE n.nspname = %s""",
        (schema,),
    )
    return found[0] if found else None


async def sessions(first: Connection, second: Connection) -> SessionFacts:
    """Whether each connection keeps a session of its own, which a transaction pooler gives to nobody."""
    names = {first: "first", second: "second"}
    pids: dict[Connection, list[int]] = {first: [], second: []}
    for connection, name in names.items():
        cursor = await connection.execute("SELECT set_config('outlast.doctor', %s, false), pg_backend_pid()", (name,))
        pids[connection] += [row[1] for row in await cursor.fetchall()]
    kept_settings = kept_statements = True
    for connection, name in names.items():
        cursor = await connection.execute("SELECT current_setting('outlast.doctor', true), pg_backend_pid()")
        for said, pid in await cursor.fetchall():
            kept_settings = kept_settings and said == name
            pids[connection].append(pid)
    # Each under the name that the driver gives to its first statement: on one server process they would meet.
    for _ in range(2):
        for connection, number in ((first, 1), (second, 2)):
            kept_statements = kept_statements and await _prepared(connection, number) == number
    return SessionFacts(
        same_server=bool(set(pids[first]) & set(pids[second])),
        moved=len(set(pids[first])) > 1 or len(set(pids[second])) > 1,
        kept_settings=kept_settings,
        kept_statements=kept_statements,
    )


async def _prepared(connection: Connection, number: int) -> int | None:
    """The number, by way of a prepared statement; None when the server knows no such statement, or knows it already."""
    statement: LiteralString = "SELECT %s::int AS first" if number == 1 else "SELECT %s::int AS second"
    try:
        cursor = await connection.execute(statement, (number,), prepare=True)
        row = await cursor.fetchone()
    except (psycopg.errors.InvalidSqlStatementName, psycopg.errors.DuplicatePreparedStatement):
        return None
    return row[0] if row else None


async def notification_queue(connection: Connection) -> float:
    """How full it is, from 0 to 1: what the slowest listener of the whole server has not taken yet."""
    cursor = await connection.execute("SELECT pg_notification_queue_usage()")
    row = await cursor.fetchone()
    return row[0] if row else 0.0


async def transactions(connection: Connection) -> list[Transaction]:
    """The open transactions of the server's other sessions, the oldest first."""
    return await _all(
        connection,
        Transaction,
        """SELECT pid, coalesce(usename, '')::text AS "user", coalesce(application_name, '') AS application,
                  datname::text AS database, coalesce(state, '') AS state,
                  greatest(0, extract(epoch FROM clock_timestamp() - xact_start))::float8 AS seconds,
                  CASE WHEN state LIKE 'idle in transaction%%'
                       THEN greatest(0, extract(epoch FROM clock_timestamp() - state_change)) ELSE 0 END::float8
                      AS idle_seconds
           FROM pg_stat_activity
           WHERE xact_start IS NOT NULL AND datname IS NOT NULL AND pid <> pg_backend_pid()
           AND backend_type = 'client backend'
           ORDER BY xact_start LIMIT %s""",
        (MOST,),
    )


async def prepared(connection: Connection) -> list[Prepared]:
    return await _all(
        connection,
        Prepared,
        """SELECT quote_literal(gid) AS quoted_id, owner::text AS "user",
                  extract(epoch FROM clock_timestamp() - prepared)::float8 AS seconds
           FROM pg_prepared_xacts WHERE database = current_database() ORDER BY prepared LIMIT %s""",
        (MOST,),
    )


async def slots(connection: Connection) -> list[Slot]:
    return await _all(
        connection,
        Slot,
        """SELECT slot_name::text AS name, quote_literal(slot_name) AS quoted_name,
                  greatest(age(xmin), age(catalog_xmin)) AS transactions
           FROM pg_replication_slots WHERE NOT active AND (xmin IS NOT NULL OR catalog_xmin IS NOT NULL)
           ORDER BY 3 DESC LIMIT %s""",
        (MOST,),
    )


async def tables(connection: Connection) -> list[TableFacts]:
    """Those that claims, beats and appends go through all the time."""
    return await _all(
        connection,
        TableFacts,
        """SELECT format('%%I.%%I', schemaname, relname) AS name, n_live_tup AS live, n_dead_tup AS dead
           FROM pg_stat_user_tables
           WHERE schemaname = current_schema() AND relname IN ('runs', 'run_heads', 'run_leases') ORDER BY relname""",
    )


async def connections(connection: Connection) -> ConnectionFacts:
    return await _one(
        connection,
        ConnectionFacts,
        """SELECT (SELECT sum(numbackends) FROM pg_stat_database)::int AS used,
                  current_setting('max_connections')::int - current_setting('superuser_reserved_connections')::int
                      - coalesce(current_setting('reserved_connections', true)::int, 0) AS available,
                  (SELECT count(*) FROM pg_stat_activity WHERE application_name = 'outlast api listener'
                   AND datname = current_database())::int AS replicas""",
    )


async def clock(connection: Connection) -> float:
    """Seconds since 1970."""
    cursor = await connection.execute("SELECT extract(epoch FROM clock_timestamp())::float8")
    row = await cursor.fetchone()
    return row[0] if row else 0.0


async def overdue_leases(connection: Connection, *, seconds: float) -> OverdueLeases:
    """The runs in progress whose lease ended so long ago and which nobody has taken back."""
    return await _one(
        connection,
        OverdueLeases,
        """SELECT count(*) AS runs, coalesce(extract(epoch FROM now() - min(lease_until)), 0)::float8 AS seconds
           FROM run_leases WHERE lease_until < now() - make_interval(secs => %s)""",
        (seconds,),
    )


async def _one(connection: Connection, kind: type[Any], query: LiteralString, values: Sequence[Any] = ()) -> Any:
    [found] = await _all(connection, kind, query, values)
    return found


async def _all(connection: Connection, kind: type[Any], query: LiteralString, values: Sequence[Any] = ()) -> Any:
    async with connection.cursor(row_factory=class_row(kind)) as cursor:
        await cursor.execute(query, values)
        return await cursor.fetchall()
