"""What is to be said of the database: facts in, findings out."""

from __future__ import annotations

from collections.abc import Sequence

from outlast.shared.connections import OLDEST_MAJOR
from outlast.shared.domain.findings import Finding, error, ok, warning
from outlast.shared.settings import Settings
from outlast.shared.store.diagnosis import (
    ConnectionFacts,
    Grants,
    Prepared,
    ServerFacts,
    SessionFacts,
    Slot,
    TableFacts,
    Transaction,
)
from outlast.shared.store.granting import Maker
from outlast.shared.store.plans import Compiling, IndexFacts

from .wording import counted, lasted

SLOW_SECONDS = 0.05
"""A round trip within a data centre takes a millisecond or two; every event and checkpoint pays for one."""
QUEUE_FULL = 0.1
TRANSACTION_SECONDS = 60.0
IDLE_SECONDS = 10.0
DEAD_ROWS = 50_000
DEAD_SHARE = 0.2
NEARLY_ALL = 0.9
_OF_API, _OF_CHILD, _OF_PARENT = 4, 1, 4  # connections beside the pools (docs/configuration.md)


def judge_server(facts: ServerFacts, *, place: str, seconds: float) -> list[Finding]:
    major = facts.version // 10_000
    said = f"Postgres {major} at {place} answers {facts.user} in {seconds * 1000:.1f} ms."
    found = [ok("database", said)]
    if seconds > SLOW_SECONDS:
        fix = "Run API and workers in the region and network of the database."
        found = [warning("database", f"{said} Every event and every checkpoint waits so long.", fix)]
    if facts.in_recovery or facts.read_only:
        what = "is a standby" if facts.in_recovery else "lets sessions only read"
        fix = (
            "Let DATABASE_URL name the primary; with several hosts add target_session_attrs=read-write."
            if facts.in_recovery
            else f"ALTER ROLE {facts.user} SET default_transaction_read_only = off; or the same of the database."
        )
        found.append(error("database", f"The server at {place} {what}: nothing can be written.", fix))
    if facts.is_superuser:
        seen = f"{facts.user} is a superuser, which Outlast does not need: it needs its schema only."
        found.append(ok("permissions", seen))
    return found


def judge_unfit(why: str) -> Finding:
    return error("database", why, f"Upgrade the server to PostgreSQL {OLDEST_MAJOR} or newer.")


def judge_compiling(facts: Compiling) -> Finding:
    """Of a connection that has set jit off. A statement of milliseconds is compiled for seconds where that is lost."""
    if not facts.on:
        return ok("jit", "Postgres compiles no statement of Outlast: jit is off on its connections.")
    seen = "Connections set jit off, and it is on: what stands in between, or the server, has not kept the setting."
    fix = f"ALTER ROLE {facts.user} IN DATABASE {facts.database} SET jit = off; and start API and workers anew."
    if facts.available:
        return error("jit", f"{seen} Postgres compiles statements, each for seconds.", fix)
    return warning("jit", f"{seen} The server was built without LLVM, so it compiles nothing.", fix)


def judge_grants(facts: Grants) -> list[Finding]:
    user, schema = facts.user, facts.schema
    if not facts.may_enter:
        seen = f"{user} may not use the schema {schema}: its tables look as if they were not there."
        return [error("permissions", seen, f"GRANT USAGE ON SCHEMA {schema} TO {user};")]
    if facts.tables:
        seen = f"{user} may not read and write {counted(len(facts.tables), 'table')}: {', '.join(facts.tables)}."
        fix = f"GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA {schema} TO {user};"
        return [error("permissions", seen, fix)]
    return [ok("permissions", f"{user} may read and write the tables of {schema}.")]


def judge_schema(version: int | None, *, needed: int, name: str) -> list[Finding]:
    if version is None:
        fix = "outlast migrate (or OUTLAST_SCHEMA, if the runs are in another schema)"
        return [error("schema", f"There is no Outlast schema {name} in this database.", fix)]
    if version < needed:
        return [error("schema", f"The schema is at {version}, this release needs {needed}.", "outlast migrate")]
    if version > needed:
        seen = f"The schema is at {version}, this release knows {needed}: a newer release has migrated it."
        return [error("schema", seen, "pip install --upgrade outlast (or use another OUTLAST_SCHEMA)")]
    return [ok("schema", f"The schema {name} is at {version}, as this release needs it.")]


def judge_maker(facts: Maker, *, name: str) -> Finding:
    seen = f"There is no Outlast schema {name} in this database, and {facts.user} may not make it."
    return error("schema", seen, f"GRANT CREATE ON DATABASE {facts.database} TO {facts.user}; then outlast migrate")


def judge_sessions(facts: SessionFacts) -> list[Finding]:
    lost = [
        what
        for what, kept in (("settings", facts.kept_settings), ("prepared statements", facts.kept_statements))
        if not kept
    ]
    if not (lost or facts.same_server or facts.moved):
        return [ok("session", "Each connection has a session of its own: its settings and statements stay.")]
    lose = f", and lose their {' and '.join(lost)}" if lost else ""
    return [
        error(
            "session",
            f"Connections share sessions of the server{lose}: a pooler in between works by transaction.",
            "Let DATABASE_URL name the server itself, or a pooler in session mode (pool_mode = session).",
        )
    ]


def judge_indexes(facts: Sequence[IndexFacts]) -> list[Finding]:
    found: list[Finding] = []
    for index in facts:
        if not index.exists:
            seen = f"The index {index.name} is missing: claims or sweeps read everything that waits."
            fix = f"Run its statement again: it is in infra/schema.sql, CREATE INDEX {index.name}."
            found.append(error("plans", seen, fix))
        elif not index.valid:
            seen = f"The index {index.name} is not valid: building it was broken off."
            found.append(error("plans", seen, f"REINDEX INDEX CONCURRENTLY {index.name};"))
        elif index.read_whole:
            seen = (
                f"The statement that needs the index {index.name} reads all of {', '.join(index.read_whole)} as well."
            )
            found.append(warning("plans", seen, "ANALYZE runs; if it stays so, report it with your Postgres version."))
        elif not index.used:
            seen = f"The statement for which the index {index.name} was made does not use it: it slows as more waits."
            found.append(warning("plans", seen, "ANALYZE runs; if it stays so, report it with your Postgres version."))
    return found or [ok("plans", f"Claims and sweeps use their {counted(len(facts), 'index', 'indexes')}.")]


def judge_listening(seconds: float | None, *, patience_seconds: float, tail: str) -> list[Finding]:
    if seconds is not None:
        return [ok("listen", f"A notification arrives in {seconds * 1000:.1f} ms.")]
    seen = f"A notification did not arrive within {patience_seconds:g} s."
    if tail == "poll":
        return [ok("listen", f"{seen} OUTLAST_TAIL=poll does without.")]
    fix = "A direct connection in DATABASE_URL; where there is none, OUTLAST_TAIL=poll."
    return [error("listen", f"{seen} Streams get their events by polling only, late.", fix)]


def judge_notification_queue(usage: float, open_transactions: Sequence[Transaction]) -> list[Finding]:
    if usage <= QUEUE_FULL:
        return [ok("notifications", f"The queue of notifications is {usage:.0%} full.")]
    seen = f"The queue of notifications is {usage:.0%} full; when it is full, no commit that notifies succeeds."
    if not open_transactions:
        fix = "SELECT pid, application_name FROM pg_stat_activity ORDER BY state_change; and end the oldest listener."
        return [warning("notifications", seen, fix)]
    holder = open_transactions[0]
    return [
        warning(
            "notifications",
            f"{seen} The oldest open transaction is that of {_named(holder)}.",
            f"SELECT pg_terminate_backend({holder.pid});",
        )
    ]


def judge_transactions(
    facts: Sequence[Transaction], prepared: Sequence[Prepared], slots: Sequence[Slot], *, server: ServerFacts
) -> list[Finding]:
    """Whoever keeps old rows from being removed, by which claims become slow."""
    found: list[Finding] = []
    for session in facts:
        fix = f"SELECT pg_terminate_backend({session.pid});"
        if session.idle_seconds > IDLE_SECONDS:
            idle = lasted(session.idle_seconds)
            seen = f"{_named(session)} has been idle in its transaction for {idle}: it may hold locks, and old rows."
            found.append(warning("transactions", seen, fix))
        elif session.seconds > TRANSACTION_SECONDS:
            seen = f"{_named(session)} has had its transaction open for {lasted(session.seconds)}: old rows stay."
            found.append(warning("transactions", seen, fix))
    for transaction in prepared:
        if transaction.seconds > TRANSACTION_SECONDS:
            seen = f"A transaction of {transaction.user} has been prepared for {lasted(transaction.seconds)}."
            found.append(warning("transactions", seen, f"ROLLBACK PREPARED {transaction.quoted_id};"))
    for slot in slots:
        seen = f"The replication slot {slot.name} is read by nobody and keeps the rows of {slot.transactions:,} "
        fix = f"SELECT pg_drop_replication_slot({slot.quoted_name}); unless its reader comes back."
        found.append(warning("transactions", f"{seen}transactions.", fix))
    if found:
        return found
    if server.sees_all_sessions:
        return [ok("transactions", "No old transaction, prepared transaction or idle replication slot.")]
    seen = f"No old transaction of {server.user}; those of others are not shown to it."
    return [ok("transactions", seen, f"GRANT pg_read_all_stats TO {server.user}; shows them.")]


def judge_tables(facts: Sequence[TableFacts]) -> list[Finding]:
    found: list[Finding] = []
    for table in facts:
        if table.dead > DEAD_ROWS and table.dead > DEAD_SHARE * table.live:
            seen = f"{table.name} has {table.dead:,} dead rows beside {table.live:,}: claims and beats wade through."
            fix = f"VACUUM (ANALYZE) {table.name}; after ending old transactions, and see that autovacuum is on."
            found.append(warning("tables", seen, fix))
    return found or [ok("tables", "No table is full of dead rows.")]


def connections_needed(settings: Settings, *, replicas: int, children: Sequence[int]) -> int:
    """The most that so many API replicas, and workers with so many children, may open all together."""
    api = replicas * (settings.api_connections + _OF_API)
    return api + sum(count * (settings.worker_connections + _OF_CHILD) + _OF_PARENT for count in children)


def judge_connections(facts: ConnectionFacts, *, needed: int, workers: int) -> list[Finding]:
    who = f"{counted(facts.replicas, 'API replica')} and {counted(workers, 'worker')} may open {needed:,}"
    said = f"{facts.used:,} of {facts.available:,} connections are open; {who}"
    more = max(needed, facts.used) * 3 // 2 + 10
    fix = (
        f"ALTER SYSTEM SET max_connections = {more}; and restart the server; or lower OUTLAST_API_CONNECTIONS, "
        "OUTLAST_WORKER_CONNECTIONS or OUTLAST_CHILDREN."
    )
    if facts.used >= NEARLY_ALL * facts.available:
        return [warning("connections", f"{said}. Soon nobody else gets one.", fix)]
    if needed > facts.available:
        return [warning("connections", f"{said}.", fix)]
    return [ok("connections", f"{said}.")]


def _named(session: Transaction) -> str:
    application = f", {session.application}" if session.application else ""
    return f"pid {session.pid} ({session.user}{application}, database {session.database})"
