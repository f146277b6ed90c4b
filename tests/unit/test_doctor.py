"""What the doctor says of facts: each decision on its own."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from outlast.infra.cli.doctor import judge_agents, judge_settings
from outlast.shared.connections import place
from outlast.shared.doctor import broker, database, machine, workers
from outlast.shared.doctor.wording import UNREADABLE, lasted, redis_place
from outlast.shared.domain.findings import Finding, Severity, error, ok, warning, worst
from outlast.shared.settings import load
from outlast.shared.store.diagnosis import (
    ConnectionFacts,
    OverdueLeases,
    Prepared,
    ServerFacts,
    SessionFacts,
    Slot,
    TableFacts,
    Transaction,
)
from outlast.shared.store.overview import Overview, QueueState, WorkerState
from outlast.shared.store.plans import Compiling, IndexFacts

WELL = ServerFacts(180_000, "app", "name", False, True, False, False)
SESSION = Transaction(41, "bob", "psql", "name", "active", 5.0, 0.0)
BROKER = broker.BrokerFacts("Valkey", "9.1.2", 0.001, "noeviction", 10, 0, False, 0.0, {"default": 0})


def one(found: list[Finding], severity: Severity) -> Finding:
    [finding] = [finding for finding in found if finding.severity is severity]
    return finding


def test_the_worst_finding_counts() -> None:
    assert worst([]) is Severity.OK
    assert worst([ok("a", "x"), warning("a", "x", "y"), ok("a", "x")]) is Severity.WARNING
    assert worst([error("a", "x", "y"), warning("a", "x", "y")]) is Severity.ERROR


@pytest.mark.parametrize(
    ("facts", "seconds", "severity", "word"),
    [
        (WELL, 0.001, Severity.OK, "Postgres 18 at here"),
        (WELL, 0.2, Severity.WARNING, "200.0 ms"),
        (replace(WELL, in_recovery=True), 0.001, Severity.ERROR, "is a standby"),
        (replace(WELL, read_only=True), 0.001, Severity.ERROR, "lets sessions only read"),
    ],
)
def test_a_server_is_judged(facts: ServerFacts, seconds: float, severity: Severity, word: str) -> None:
    assert word in one(database.judge_server(facts, place="here", seconds=seconds), severity).seen


@pytest.mark.parametrize(
    ("on", "available", "severity"),
    [(False, False, Severity.OK), (True, False, Severity.WARNING), (True, True, Severity.ERROR)],
)
def test_a_server_that_compiles_all_the_same_is_named_with_the_sql_that_ends_it(
    on: bool, available: bool, severity: Severity
) -> None:
    finding = database.judge_compiling(Compiling(on, available, "app", "name"))
    assert finding.severity is severity
    assert not on or "ALTER ROLE app IN DATABASE name SET jit = off;" in (finding.fix or "")


def test_connections_that_share_a_session_are_an_error_whichever_way_it_shows() -> None:
    alone = SessionFacts(same_server=False, moved=False, kept_settings=True, kept_statements=True)
    assert worst(database.judge_sessions(alone)) is Severity.OK
    for change in ({"same_server": True}, {"moved": True}, {"kept_settings": False}, {"kept_statements": False}):
        assert worst(database.judge_sessions(replace(alone, **change))) is Severity.ERROR, change


@pytest.mark.parametrize(
    ("facts", "severity", "fix"),
    [
        (IndexFacts("i", True, True, True), Severity.OK, None),
        (IndexFacts("i", False, False, False), Severity.ERROR, "CREATE INDEX i"),
        (IndexFacts("i", True, False, False), Severity.ERROR, "REINDEX INDEX CONCURRENTLY i;"),
        (IndexFacts("i", True, True, False), Severity.WARNING, "ANALYZE"),
        (IndexFacts("i", True, True, True, ["runs"]), Severity.WARNING, "ANALYZE"),
    ],
)
def test_plans_are_judged(facts: IndexFacts, severity: Severity, fix: str | None) -> None:
    [finding] = database.judge_indexes([facts])
    assert finding.severity is severity and (fix is None or fix in (finding.fix or ""))


def judged(*sessions: Transaction, **others: Any) -> list[Finding]:
    given: dict[str, Any] = {"prepared": [], "slots": [], "server": WELL, **others}
    return database.judge_transactions(sessions, **given)


def test_old_transactions_are_named_with_the_sql_that_ends_them() -> None:
    assert worst(judged(SESSION, replace(SESSION, idle_seconds=9))) is Severity.OK
    old = one(judged(replace(SESSION, seconds=7300)), Severity.WARNING)
    assert all(word in old.seen for word in ("pid 41", "bob", "psql", "2 h"))
    assert old.fix == "SELECT pg_terminate_backend(41);"
    idle = one(judged(replace(SESSION, seconds=11, idle_seconds=11)), Severity.WARNING)
    assert "idle in its transaction for 11 s" in idle.seen
    left = one(judged(prepared=[Prepared("'it''s'", "bob", 90)]), Severity.WARNING)
    assert left.fix == "ROLLBACK PREPARED 'it''s';"
    assert worst(judged(prepared=[Prepared("'x'", "bob", 1)])) is Severity.OK
    slot = one(judged(slots=[Slot("gone", "'gone'", 1_234_567)]), Severity.WARNING)
    assert "1,234,567" in slot.seen and "pg_drop_replication_slot('gone')" in (slot.fix or "")
    hidden = one(judged(server=replace(WELL, sees_all_sessions=False)), Severity.OK)
    assert "GRANT pg_read_all_stats TO app;" in (hidden.fix or "")


def test_a_full_notification_queue_is_blamed_on_the_oldest_transaction() -> None:
    assert worst(database.judge_notification_queue(0.1, [SESSION])) is Severity.OK
    assert "pg_terminate_backend(41)" in (database.judge_notification_queue(0.11, [SESSION])[0].fix or "")
    assert database.judge_notification_queue(1.0, [])[0].fix


def test_a_late_notification_matters_only_to_who_listens() -> None:
    assert worst(database.judge_listening(0.1, patience_seconds=2, tail="listen")) is Severity.OK
    late = one(database.judge_listening(None, patience_seconds=2, tail="listen"), Severity.ERROR)
    assert "OUTLAST_TAIL=poll" in (late.fix or "")
    assert worst(database.judge_listening(None, patience_seconds=2, tail="poll")) is Severity.OK


def test_dead_rows_count_when_they_are_many_and_a_good_part() -> None:
    for live, dead, severity in (
        (10, 50_000, Severity.OK), (1_000_000, 60_000, Severity.OK), (100_000, 60_000, Severity.WARNING),
    ):  # fmt: skip
        assert worst(database.judge_tables([TableFacts("outlast.runs", live, dead)])) is severity


def test_connections_are_counted_against_what_all_parts_may_open() -> None:
    settings = load(api_connections=10, worker_connections=6)
    assert database.connections_needed(settings, replicas=2, children=[4, 1]) == 2 * 14 + (4 * 7 + 4) + (7 + 4)
    for used, needed, severity in ((5, 97, Severity.OK), (5, 98, Severity.WARNING), (90, 5, Severity.WARNING)):
        facts = ConnectionFacts(used=used, available=97, replicas=1)
        assert worst(database.judge_connections(facts, needed=needed, workers=1)) is severity


@pytest.mark.parametrize(
    ("change", "severity", "word"),
    [
        ({}, Severity.OK, "Valkey 9.1.2 at here"),
        ({"version": None}, Severity.OK, "The broker at here"),
        ({"seconds": 0.5}, Severity.WARNING, "500.0 ms"),
        ({"name": "Redis", "version": "5.0.14"}, Severity.ERROR, "Redis 5.0.14 at here is older than 6.0"),
        ({"policy": "allkeys-lru"}, Severity.WARNING, "allkeys-lru"),
        ({"policy": None}, Severity.OK, "Valkey"),
        ({"used_bytes": 95, "most_bytes": 100}, Severity.WARNING, "95 of 100 bytes"),
        ({"is_replica": True}, Severity.ERROR, "is a replica"),
        ({"bells": {"default": 1, "slow": 10_001}}, Severity.WARNING, "10,001 doorbells in queue slow"),
    ],
)
def test_a_broker_is_judged(change: dict[str, Any], severity: Severity, word: str) -> None:
    found = broker.judge_broker(replace(BROKER, **change), place="here")
    assert worst(found) is severity
    assert word in " ".join(finding.seen for finding in found if finding.severity is severity)


@pytest.mark.parametrize(
    ("ahead", "uncertain", "severity"),
    [
        (0.9, 0.0, Severity.OK), (-1.4, 0.5, Severity.OK), (1.6, 0.1, Severity.WARNING), (-2.9, 0.0, Severity.WARNING),
        (3.2, 0.1, Severity.ERROR), (-86_400.0, 0.1, Severity.ERROR),
    ],
)  # fmt: skip
def test_clocks_are_judged_by_what_is_certain(ahead: float, uncertain: float, severity: Severity) -> None:
    finding = machine.judge_clock(ahead, whose="database", uncertain_seconds=uncertain, lease_seconds=6)
    assert finding.severity is severity
    assert severity is Severity.OK or ("behind" if ahead < 0 else "ahead of") in finding.seen


def test_few_files_are_a_warning() -> None:
    assert worst(machine.judge_files(None)) is worst(machine.judge_files(4096)) is Severity.OK
    assert "LimitNOFILE" in (one(machine.judge_files(1024), Severity.WARNING).fix or "")


# -- workers and queues ------------------------------------------------------------------------------------------------

WORKER = WorkerState(
    owner="w", host="h", pid=7, version="1.0", queues=["default"], up_seconds=60.0, seen_seconds=0.5, alive=True,
    resting=False, children=2, slots=20, running=3, draining=False, drain_requested=False, oldest_seconds=None,
    counters={},
)  # fmt: skip


def seen(*found: WorkerState, queued: int = 0, running: int = 0, **queues: QueueState) -> Overview:
    return Overview(queues, queued, True, running, {}, list(found), 0, 1.0, 0.0)


def test_no_worker_is_an_error_only_while_runs_wait_for_one() -> None:
    assert worst(workers.judge_workers(seen(), version="1.0")) is Severity.WARNING
    stuck = one(workers.judge_workers(seen(queued=2, running=1), version="1.0"), Severity.ERROR)
    assert "3 runs cannot go on" in stuck.seen and stuck.fix == "outlast worker"


def test_silent_workers_and_those_of_another_version_are_named() -> None:
    assert worst(workers.judge_workers(seen(WORKER), version="1.0")) is Severity.OK
    assert "h:7 is of version 1.0" in one(workers.judge_workers(seen(WORKER), version="2"), Severity.WARNING).seen
    dead = [replace(WORKER, pid=number, alive=False, seen_seconds=30) for number in range(8)]
    said = one(workers.judge_workers(seen(WORKER, *dead), version="1.0"), Severity.WARNING).seen
    assert "h:4 and 3 more of 9 workers are silent" in said and "30 s" in said


def test_a_queue_that_nobody_serves_or_that_falls_behind_is_named() -> None:
    assert worst(workers.judge_queues(seen(WORKER, default=QueueState(ready=5, oldest_seconds=59)))) is Severity.OK
    unserved = one(workers.judge_queues(seen(WORKER, slow=QueueState(ready=1, oldest_seconds=1))), Severity.ERROR)
    assert "queue slow: 1 ready run" in unserved.seen and "OUTLAST_QUEUES=slow" in (unserved.fix or "")
    late = QueueState(ready=10_000, oldest_seconds=600)
    idle = one(workers.judge_queues(seen(WORKER, default=late)), Severity.WARNING)
    assert "10,000+ ready runs, the oldest for 10 min" in idle.seen and "free slots" in (idle.fix or "")
    full = one(workers.judge_queues(seen(replace(WORKER, running=20), default=late)), Severity.WARNING)
    assert "Start more workers" in (full.fix or "")


def test_leases_that_ended_long_ago_say_that_nobody_sweeps() -> None:
    assert worst(workers.judge_leases(OverdueLeases(0, 0.0))) is Severity.OK
    assert "nobody sweeps" in one(workers.judge_leases(OverdueLeases(3, 90.0)), Severity.ERROR).seen


# -- settings and agents -----------------------------------------------------------------------------------------------


def test_a_variable_that_is_no_setting_is_named_without_its_value() -> None:
    config = load(agents={"a": "m:a"})
    known = {"OUTLAST_LEASE_SECONDS": "6", "OUTLAST_SCHEMA": "x", "OUTLAST_API_KEY": "k", "DATABASE_URL": "x"}
    assert worst(judge_settings(config, known)) is Severity.OK
    typo = one(judge_settings(config, {**known, "OUTLAST_LEASE_SECOND": "s3cret"}), Severity.WARNING)
    assert typo.fix == "Perhaps OUTLAST_LEASE_SECONDS is meant." and "s3cret" not in typo.seen
    assert one(judge_settings(load(agents={}), {}), Severity.WARNING).fix


def test_what_the_agents_say_of_themselves_is_told_without_secrets() -> None:
    said = b"noise\n" + json.dumps({"a": None, "b": "Agent b: cannot reach pg://u:hunter2@h"}).encode() + b"\n"
    found = one(judge_agents(said, b"", secrets=["hunter2"]), Severity.ERROR)
    assert found.seen == "Agent b: cannot reach pg://u:…@h."
    died = one(judge_agents(b"", b"Traceback\nSystemExit: hunter2", secrets=["hunter2"]), Severity.ERROR)
    assert "SystemExit: …" in died.seen
    assert worst(judge_agents(b'{"a":null}', b"", secrets=[])) is Severity.OK


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("redis://u:hunter2@h:1/3", "h:1, database 3"),
        ("rediss://:hunter2@[::1]", "[::1]:6379, database 0"),
        ("unix://u:hunter2@/a/b.sock?db=2", "/a/b.sock, database 2"),
        ("redis://u:1234/hunter2@h:1/3", UNREADABLE),
        ("redis://u:#hunter2@h:1/3", UNREADABLE),
        ("redis://u:hun?ter2@h:1/3", UNREADABLE),
        ("hunter2", UNREADABLE),
        ("redis://h:hunter2", UNREADABLE),
        ("redis://h/hunter2", UNREADABLE),
    ],
)
def test_a_broker_is_shown_without_its_password(url: str, shown: str) -> None:
    assert redis_place(url) == shown


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("postgresql://u:hunter2@h:1/name?sslmode=require", "h:1/name"),
        ("host=h password=hunter2 dbname=n", "h/n"),
        ("postgresql://u:12/hunter2@h:1/name", None),
        ("postgresql://u:hunter2@@h:1/name", None),
        ("hunter2", None),
        ("postgresql:///", "localhost"),
    ],
)
def test_a_database_is_shown_without_its_password(url: str, shown: str | None) -> None:
    assert place(url) == shown


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(0.25, "0.25 s"), (119, "119 s"), (120, "2 min"), (7200, "2 h"), (1e6, "11 days"), (1e12, "11574074 days")],
)
def test_times_are_told_in_the_unit_of_their_size(seconds: float, said: str) -> None:
    assert lasted(seconds) == said
