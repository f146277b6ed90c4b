"""The doctor on real servers: each fault is made, found, and where it can be mended by the fix that is given."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncGenerator, Generator
from importlib.metadata import version
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import httpx
import psycopg
import pytest
import redis
from psycopg.sql import SQL, Identifier
from pydantic import SecretStr
from typer.testing import CliRunner

from outlast.agent import Context, Request
from outlast.infra.cli import app
from outlast.infra.embedded import Postgres, Valkey
from outlast.infra.migrate import migrate, shipped
from outlast.shared.connections import Database, fixed
from outlast.shared.connections.session import SESSION
from outlast.shared.doctor.examination import examine
from outlast.shared.domain.findings import Finding, Severity
from outlast.shared.domain.keys import Scope
from outlast.shared.settings import Settings
from outlast.shared.store import diagnosis, plans, schema, workers
from outlast.shared.store.diagnosis import Grants
from tests.support.bulk import fill
from tests.support.keys import a_key, bearer
from tests.support.outages import Outages
from tests.support.pooler import pooled_by_transaction
from tests.support.proxy import Mode, Proxy
from tests.support.refusals import refused
from tests.support.runs import claimed, submitted
from tests.support.service import serving

SECRET = "hunter2-s3cret"


async def findings(settings: Settings) -> dict[str, list[Finding]]:
    """Those that are not well, by what was looked at; of a check that found nothing wrong there is none."""
    seen = await examine(settings)
    found: dict[str, list[Finding]] = {}
    for finding in seen.findings:
        assert finding.seen.endswith(".") and (finding.severity is Severity.OK or finding.fix), finding
        if finding.severity is not Severity.OK:
            found.setdefault(finding.check, []).append(finding)
    return found


async def one(settings: Settings, check: str, severity: Severity) -> Finding:
    found = await findings(settings)
    assert check in found, found
    [finding] = found[check]
    assert finding.severity is severity, finding
    return finding


async def reported(database: Database, owner: str = "w", **changes: Any) -> None:
    plain: dict[str, Any] = {
        "host": "h", "pid": 7, "version": version("outlast"), "queues": ["default"], "children": 2, "slots": 20,
        "running": 0, "draining": False, "counters": {},
    }  # fmt: skip
    await database.run(lambda c: workers.report(c, workers.Report(owner=owner, **{**plain, **changes})))


@pytest.fixture
async def well(settings: Settings, database: Database) -> Settings:
    """An Outlast with a worker, as it should be."""
    await reported(database)
    return settings


async def test_there_is_nothing_to_say_of_a_healthy_outlast(well: Settings) -> None:
    assert await findings(well) == {}
    checks = {finding.check for finding in (await examine(well)).findings}
    assert checks == {
        "database", "permissions", "session", "jit", "schema", "listen", "notifications", "transactions", "clocks",
        "plans", "tables", "workers", "queues", "leases", "connections", "broker", "doorbells", "files",
    }  # fmt: skip


async def test_looking_changes_nothing(well: Settings, database: Database) -> None:
    await submitted(database)
    await claimed(database)

    async def rows() -> list[Any]:
        """Where every row is, and who has touched it."""
        found: list[Any] = []
        for table in ("runs", "run_heads", "run_leases", "run_events", "workers", "threads"):
            query = SQL("SELECT ctid, xmin, xmax FROM {} ORDER BY ctid").format(Identifier(table))
            cursor = await database.run(lambda c: c.execute(query))
            found += await cursor.fetchall()
        return found

    before = await rows()
    await examine(well)
    assert await rows() == before != []


# -- the database ------------------------------------------------------------------------------------------------------


async def test_a_database_that_is_away_is_said_once_and_the_others_are_looked_at(well: Settings) -> None:
    away = well.model_copy(update={"database_url": SecretStr(f"postgresql://u:{SECRET}@127.0.0.1:9/none")})
    found = await findings(away)
    assert set(found) == {"database"} and "127.0.0.1:9/none" in found["database"][0].seen
    assert "broker" in {finding.check for finding in (await examine(away)).findings}


async def test_a_database_that_never_answers_is_given_up(well: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("outlast.shared.doctor.examination.CHECK_SECONDS", 0.3)
    with Proxy(well.required_database_url()) as silent:
        silent.mode = Mode.BLACK_HOLE
        finding = await one(well.model_copy(update={"database_url": SecretStr(silent.url)}), "database", Severity.ERROR)
    assert "no answer within 0.3 s" in finding.seen


async def test_a_database_that_falls_silent_half_way_ends_every_check(
    well: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("outlast.shared.doctor.examination.CHECK_SECONDS", 0.3)
    monkeypatch.setattr("outlast.shared.doctor.examination.ALL_SECONDS", 2.0)
    grants = diagnosis.grants
    with Proxy(well.required_database_url()) as way:

        async def silenced(*arguments: Any) -> Grants | None:
            way.mode = Mode.BLACK_HOLE
            return await grants(*arguments)

        monkeypatch.setattr(diagnosis, "grants", silenced)
        found = await findings(well.model_copy(update={"database_url": SecretStr(way.url)}))
    assert {"permissions", "listen", "transactions", "clocks"} <= set(found)
    assert "database" not in found and "session" not in found


@pytest.mark.parametrize(
    ("url", "severity"), [("hunter2-s3cret", Severity.ERROR), ("postgresql://u:1/hunter2-s3cret@h/n", Severity.ERROR)]
)
async def test_what_is_no_address_is_not_repeated(well: Settings, url: str, severity: Severity) -> None:
    finding = await one(well.model_copy(update={"database_url": SecretStr(url)}), "database", severity)
    assert SECRET not in str(finding)


async def test_a_server_that_compiles_all_the_same_is_named_until_its_role_says_otherwise(
    well: Settings, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    await database.run(lambda c: c.execute(_by_default("jit = on")))
    assert "jit" not in await findings(well)

    monkeypatch.delitem(SESSION, "jit")  # as if what stands in between had taken it away
    cursor = await database.run(lambda c: c.execute("SELECT set_config('jit', 'on', false), pg_jit_available()"))
    row = await cursor.fetchone()
    compiles = bool(row and row[1])
    finding = await one(well, "jit", Severity.ERROR if compiles else Severity.WARNING)
    mend = (finding.fix or "").partition(";")[0].encode()
    await database.run(lambda c: c.execute(mend))
    assert "jit" not in await findings(well)


def _by_default(setting: str) -> SQL:
    return SQL(f"DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET {setting}', current_database()); END $$")  # type: ignore[arg-type]


async def test_a_schema_that_is_missing_old_or_new_is_told_apart(well: Settings, database: Database) -> None:
    missing = await one(well.model_copy(update={"db_schema": "elsewhere"}), "schema", Severity.ERROR)
    assert "There is no Outlast schema elsewhere" in missing.seen and "outlast migrate" in (missing.fix or "")
    newer = "INSERT INTO schema_migrations (version, name, checksum) VALUES (9999, 'x', 'x')"
    await database.run(lambda c: c.execute(newer))
    assert "newer release" in (await one(well, "schema", Severity.ERROR)).seen
    older = "DELETE FROM schema_migrations WHERE version >= %s"
    await database.run(lambda c: c.execute(older, (schema.NEEDED_VERSION,)))
    assert (await one(well, "schema", Severity.ERROR)).fix == "outlast migrate"


@pytest.fixture
def limited(database_url: str) -> Generator[str]:
    """The address of a role without rights."""
    role = f"limited_{urlsplit(database_url).path[-12:]}"
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute(f'CREATE ROLE "{role}" LOGIN')  # type: ignore[arg-type]
        yield database_url.replace("//" + (urlsplit(database_url).username or ""), f"//{role}", 1)
        connection.execute(f'DROP OWNED BY "{role}"')  # type: ignore[arg-type]
        connection.execute(f'DROP ROLE "{role}"')  # type: ignore[arg-type]


async def test_a_role_without_rights_is_mended_by_the_grants_that_are_named(
    well: Settings, database_url: str, limited: str
) -> None:
    as_role = well.model_copy(update={"database_url": SecretStr(limited)})
    with psycopg.connect(database_url, autocommit=True) as root:
        for words in ("may not use the schema outlast", "may not read and write"):
            found = await findings(as_role)
            [finding] = found["permissions"]
            assert words in finding.seen and "schema" not in found
            root.execute(finding.fix)  # type: ignore[arg-type]
    assert await findings(as_role) == {}
    fixes = [finding.fix or "" for finding in (await examine(as_role)).findings]
    assert any("pg_read_all_stats" in fix for fix in fixes)


async def test_a_session_that_sleeps_in_its_transaction_is_ended_by_the_fix(
    well: Settings, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("outlast.shared.doctor.database.IDLE_SECONDS", 0)
    with psycopg.connect(database_url, application_name="sleeper") as sleeping:
        sleeping.execute("SELECT 1")
        finding = await one(well, "transactions", Severity.WARNING)
        assert f"pid {sleeping.info.backend_pid}" in finding.seen and "sleeper" in finding.seen
        with psycopg.connect(database_url, autocommit=True) as root:
            root.execute(finding.fix)  # type: ignore[arg-type]
        with pytest.raises(psycopg.OperationalError):
            sleeping.execute("SELECT 1")
    assert await findings(well) == {}


async def test_an_old_transaction_that_works_is_found(
    well: Settings, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("outlast.shared.doctor.database.TRANSACTION_SECONDS", 0)
    async with await psycopg.AsyncConnection.connect(database_url) as busy:
        working = asyncio.create_task(busy.execute("SELECT pg_sleep(60)"))
        try:
            finding = await one(well, "transactions", Severity.WARNING)
        finally:
            busy.cancel()
            await asyncio.wait({working})
        assert "has had its transaction open" in finding.seen
        working.exception()


async def test_a_pooler_by_transaction_is_found_and_named(well: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("outlast.shared.doctor.examination.ALL_SECONDS", 4.0)  # the rest fails in ways of its own
    async with pooled_by_transaction(well.required_database_url()) as url:
        found = await findings(well.model_copy(update={"database_url": SecretStr(url)}))
        assert "pool_mode = session" in (found["session"][0].fix or "")
        assert "settings" in found["session"][0].seen and "prepared statements" in found["session"][0].seen
        assert "OUTLAST_TAIL=poll" in (found["listen"][0].fix or "")
        polling = well.model_copy(update={"database_url": SecretStr(url), "tail": "poll"})
        assert "listen" not in await findings(polling)


async def test_indexes_that_are_missing_or_broken_are_named(well: Settings, database: Database) -> None:
    broken = "UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'runs_begun'::regclass"
    await database.run(lambda c: c.execute(broken))
    finding = await one(well, "plans", Severity.ERROR)
    assert finding.fix == "REINDEX INDEX CONCURRENTLY runs_begun;"
    await database.run(lambda c: c.execute(finding.fix))  # type: ignore[arg-type]
    await database.run(lambda c: c.execute("DROP INDEX runs_claim"))
    assert "runs_claim is missing" in (await one(well, "plans", Severity.ERROR)).seen


async def test_what_has_ended_is_not_read_by_what_runs_all_the_time(well: Settings, database: Database) -> None:
    """Thousands of ended runs, more than a small part of which the planner would not take for nothing."""
    await database.run(lambda c: fill(c, 6000, "many"))
    ended = """UPDATE runs SET status = 'failed', ready = false, attempt = 1, started_at = now(), deadline_at = now(),
               finished_at = now(), response = '{}' WHERE principal = 'many'"""
    await database.run(lambda c: c.execute(ended))
    await database.run(lambda c: c.execute("ANALYZE"))
    assert "plans" not in await findings(well)

    whole = "SELECT id FROM runs WHERE status = 'queued' AND %(queue)s::text = 'default' ORDER BY id"
    planned = {**plans.PLANNED, "runs_pkey": whole}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plans, "PLANNED", planned)
        assert "reads all of runs as well" in (await one(well, "plans", Severity.WARNING)).seen


def test_a_notification_queue_that_fills_is_found(tmp_path_factory: pytest.TempPathFactory) -> None:
    server = Postgres(tmp_path_factory.mktemp("p"), settings={"fsync": "off", "max_notify_queue_pages": "64"})
    server.start()
    try:
        url = server.url
        asyncio.run(migrate(Database(fixed(url), schema="outlast", application="tests"), shipped()))
        with psycopg.connect(url) as listening, psycopg.connect(url, autocommit=True) as notifying:
            listening.execute("LISTEN x")
            listening.commit()
            listening.execute("SELECT 1")
            for number in range(20):
                notifying.execute("SELECT pg_notify('x', repeat('x', 7000) || %s)", (number,))
            found = asyncio.run(findings(Settings(database_url=SecretStr(url))))
            [finding] = found["notifications"]
            assert f"pid {listening.info.backend_pid}" in finding.seen
            assert finding.fix == f"SELECT pg_terminate_backend({listening.info.backend_pid});"
            assert "REDIS_URL" in found["broker"][0].seen
    finally:
        server.stop()


async def test_nobody_else_gets_a_connection(well: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    finding = await one(well.model_copy(update={"api_connections": 1000}), "connections", Severity.WARNING)
    assert "max_connections" in (finding.fix or "")


# -- the broker --------------------------------------------------------------------------------------------------------


@pytest.fixture
def own_valkey(tmp_path_factory: pytest.TempPathFactory) -> Generator[Valkey]:
    server = Valkey(tmp_path_factory.mktemp("v"))
    server.start()
    yield server
    server.stop()


async def test_a_broker_that_is_stopped_is_said(well: Settings, own_valkey: Valkey) -> None:
    with_it = well.model_copy(update={"redis_url": SecretStr(own_valkey.url)})
    assert await findings(with_it) == {}
    own_valkey.stop()
    assert "cannot be asked" in (await one(with_it, "broker", Severity.ERROR)).seen


async def test_a_broker_that_never_answers_is_given_up(well: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("outlast.shared.doctor.asking_broker._ANSWER_SECONDS", 0.2)
    with Proxy(well.required_redis_url()) as silent:
        silent.mode = Mode.BLACK_HOLE
        finding = await one(well.model_copy(update={"redis_url": SecretStr(silent.url)}), "broker", Severity.ERROR)
    assert "does not answer in time" in finding.seen


async def test_a_broker_that_evicts_is_nearly_full_and_hears_many_bells_is_said(
    well: Settings, own_valkey: Valkey, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("outlast.shared.doctor.broker.MANY_BELLS", 2)
    with redis.Redis.from_url(own_valkey.url) as client:
        client.rpush("{outlast}:outlast.default", "1", "2", "3")
        client.config_set("maxmemory", client.info()["used_memory"])  # type: ignore[index]
        client.config_set("maxmemory-policy", "volatile-lru")
        found = await findings(well.model_copy(update={"redis_url": SecretStr(own_valkey.url)}))
    said = " ".join(finding.seen for finding in found["broker"])
    assert "volatile-lru" in said and "soon it takes no doorbell" in said
    assert "3 doorbells in queue default" in found["doorbells"][0].seen


async def test_a_user_of_the_broker_who_may_do_little_is_served_and_a_wrong_password_told(
    well: Settings, own_valkey: Valkey
) -> None:
    with redis.Redis.from_url(own_valkey.url) as client:
        client.execute_command("ACL", "SETUSER", "bells", "on", f">{SECRET}", "~*", "+ping", "+time", "+llen")
    for password, wrong in ((SECRET, False), (SECRET + "x", True)):
        url = own_valkey.url.replace("unix://", f"unix://bells:{password}@")
        found = await findings(well.model_copy(update={"redis_url": SecretStr(url)}))
        assert ("broker" in found) is wrong and SECRET not in str(found)
        assert not wrong or "refuses the user or the password" in found["broker"][0].seen


@pytest.mark.parametrize("url", ["amqp://u:hunter2-s3cret@h", "redis://u:1/hunter2-s3cret@h", "hunter2-s3cret"])
async def test_a_broker_of_another_kind_is_refused_without_repeating_it(well: Settings, url: str) -> None:
    finding = await one(well.model_copy(update={"redis_url": SecretStr(url)}), "broker", Severity.ERROR)
    assert SECRET not in str(finding)


# -- workers -----------------------------------------------------------------------------------------------------------


async def test_workers_and_queues_in_trouble_are_named(well: Settings, database: Database) -> None:
    await reported(database, "old", host="<b>old</b>", version="0.0.1")
    await reported(database, "silent", host="gone", pid=8)
    silent = "UPDATE workers SET seen_at = now() - interval '20 s' WHERE owner = 'silent'"
    await database.run(lambda c: c.execute(silent))
    await submitted(database, queue="slow")

    found = await findings(well)

    said = " ".join(finding.seen for finding in found["workers"])
    assert "<b>old</b>:7 is of version 0.0.1" in said and "gone:8 of 3 workers is silent" in said
    assert "OUTLAST_QUEUES=slow" in (found["queues"][0].fix or "")
    assert set(found) == {"workers", "queues"}


async def test_runs_that_nobody_takes_back_are_found(well: Settings, database: Database) -> None:
    await submitted(database)
    await claimed(database)
    ended = "UPDATE run_leases SET lease_until = now() - interval '1 min'"
    await database.run(lambda c: c.execute(ended))
    assert "1 run in progress with a lease that ended up to 6" in (await one(well, "leases", Severity.ERROR)).seen


async def test_without_workers_only_waiting_runs_make_an_error(settings: Settings, database: Database) -> None:
    assert (await one(settings, "workers", Severity.WARNING)).fix == "outlast worker"
    await submitted(database)
    assert "1 run cannot go on" in (await one(settings, "workers", Severity.ERROR)).seen


# -- over HTTP ---------------------------------------------------------------------------------------------------------


async def silent_agent(_request: Request, _context: Context):
    yield ""


@pytest.fixture
async def replicas(settings: Settings) -> AsyncGenerator[list[httpx.AsyncClient]]:
    """One that asks for keys, and one that does not."""
    async with (
        serving(settings.model_copy(update={"auth": "api_keys"}), {"silent": silent_agent}) as with_keys,
        serving(settings, {"silent": silent_agent}, workers=0) as without,
        httpx.AsyncClient(base_url=with_keys.url, timeout=30) as first,
        httpx.AsyncClient(base_url=without.url, timeout=30) as second,
    ):
        yield [first, second]


async def test_admins_get_the_findings_as_json_also_while_the_database_is_away(
    replicas: list[httpx.AsyncClient], database: Database, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    alice, root = bearer(await a_key(database, "alice")), bearer(await a_key(database, "root", Scope.ADMIN))
    refused(await replicas[0].get("/admin/doctor", headers=alice), 403, code="insufficient_scope")
    shown = (await replicas[0].get("/admin/doctor", headers=root)).json()
    assert (shown["version"], shown["status"] in ("ok", "warning")) == (version("outlast"), True)
    assert {"check", "severity", "seen", "fix"} == set(shown["findings"][0])

    monkeypatch.setattr("outlast.api.examinations._KEPT_SECONDS", 0)
    with Outages(database_url).refused_logins():
        away = (await replicas[1].get("/admin/doctor")).json()
    assert away["status"] == "error" and away["findings"][0]["check"] == "database"


async def test_many_who_ask_share_one_examination(
    replicas: list[httpx.AsyncClient], monkeypatch: pytest.MonkeyPatch
) -> None:
    looks = 0

    async def counting(settings: Settings) -> Any:
        nonlocal looks
        looks += 1
        return await examine(settings)

    monkeypatch.setattr("outlast.api.examinations.examine", counting)
    monkeypatch.setattr("outlast.api.examinations._KEPT_SECONDS", 3600)
    answers = await asyncio.gather(*(replicas[1].get("/admin/doctor") for _ in range(10)))
    assert {answer.status_code for answer in answers} == {200} and looks == 1


# -- on the command line -----------------------------------------------------------------------------------------------


def run(*arguments: str, **env: str | None) -> Any:
    return CliRunner().invoke(app, ["doctor", *arguments], env=env)


@pytest.fixture
def env(database_url: str, redis_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text("print('noise')\nasync def agent(request, context):\n    yield ''\n")
    (tmp_path / "bad.py").write_text("import os\nraise RuntimeError('no way to ' + os.environ['DATABASE_URL'])\n")
    (tmp_path / "leaving.py").write_text("import sys\nsys.exit(3)\n")
    (tmp_path / "gone.py").write_text("import os\nos._exit(3)\n")
    return {"DATABASE_URL": database_url, "REDIS_URL": redis_url, "OUTLAST_AGENTS": "mine=mine:agent"}


def test_a_healthy_outlast_exits_with_0_and_a_doubtful_one_with_1_when_it_is_strict(env: dict[str, str]) -> None:
    shown = run(**env)  # no worker is alive: a warning
    assert shown.exit_code == 0 and "1 warning" in shown.stdout and "All agents can be loaded: mine." in shown.stdout
    assert "→ outlast worker" in shown.stdout and "noise" not in shown.stdout
    assert run("--strict", **env).exit_code == 1
    parsed = json.loads(run("--json", "--no-agents", **env).stdout)
    assert parsed["status"] == "warning" and "agents" not in {finding["check"] for finding in parsed["findings"]}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"OUTLAST_BEAT_SECONDS": "5"}, "OUTLAST_LEASE_SECONDS must be at least three times"),
        ({"OUTLAST_AGENTS": "m=nowhere:agent"}, "there is no module 'nowhere'"),
        ({"OUTLAST_AGENTS": "m=leaving:agent"}, "importing leaving raised SystemExit: 3, at leaving.py:2"),
        ({"OUTLAST_AGENTS": "m=gone:agent"}, "Loading the agents ended early"),
        ({"DATABASE_URL": ""}, "DATABASE_URL is not set"),
        ({"REDIS_URL": "redis://127.0.0.1:9"}, "127.0.0.1:9, database 0"),
        ({"OUTLAST_SCHEMA": "elsewhere"}, "There is no Outlast schema elsewhere"),
    ],
)
def test_what_is_wrong_is_said_and_exits_with_1(env: dict[str, str], change: dict[str, str], words: str) -> None:
    shown = run(**{**env, **change})
    assert shown.exit_code == 1 and words in shown.stdout, shown.stdout
    assert re.search(r"^error ", shown.stdout, re.MULTILINE) and "Traceback" not in shown.stdout + shown.stderr


def test_an_operator_needs_no_agents(env: dict[str, str]) -> None:
    shown = run(**{**env, "OUTLAST_AGENTS": ""})
    assert shown.exit_code == 0 and "OUTLAST_AGENTS is not set here" in shown.stdout, shown.stdout


def test_checkpoints_of_another_release_are_an_error(env: dict[str, str]) -> None:
    with psycopg.connect(env["DATABASE_URL"], autocommit=True) as connection:
        connection.execute(SQL("COMMENT ON TABLE outlast.checkpoints IS 'another'"))
    shown = run("--no-agents", **env)
    assert shown.exit_code == 1 and "LangGraph's tables are not those of" in shown.stdout


def test_no_secret_is_ever_shown(env: dict[str, str]) -> None:
    password = quote(SECRET)
    broken = {**env, "OUTLAST_AGENTS": "m=bad:agent", "OUTLAST_SECRET_OF_MINE": SECRET}
    for database_url in (
        f"postgresql://u:{password}@127.0.0.1:9/n", f"postgresql://u:1/{SECRET}@h/n", f"nonsense {SECRET}",
        f"host=127.0.0.1 port=9 password={SECRET}", f"postgresql://u:{SECRET}@[::1/n", f"mysql://u:{SECRET}@h/n",
    ):  # fmt: skip
        for redis_url in (f"redis://:{password}@127.0.0.1:9/0", f"redis://:1/{SECRET}@h:6379", SECRET):
            shown = run("--no-agents", **{**broken, "DATABASE_URL": database_url, "REDIS_URL": redis_url})
            assert shown.exit_code == 1 and SECRET not in shown.stdout + shown.stderr, shown.stdout
    with_agents = run("--json", **{**broken, "DATABASE_URL": f"postgresql://u:{password}@127.0.0.1:9/n"})
    assert "RuntimeError: no way to …" in with_agents.stdout and SECRET not in with_agents.stdout
    unfit = run(**{**broken, "OUTLAST_LEASE_SECONDS": SECRET})
    assert unfit.exit_code == 1 and SECRET not in unfit.stdout + unfit.stderr


def test_names_from_elsewhere_cannot_steer_the_terminal(env: dict[str, str]) -> None:
    with psycopg.connect(env["DATABASE_URL"], autocommit=True) as connection:
        connection.execute(
            """INSERT INTO outlast.workers (owner, host, pid, version, queues, children, slots, running, draining)
               VALUES ('x', E'\\x1b[2Jevil\\n', 7, E'\\x1b]0;', '{default}', 1, 1, 0, false)"""
        )
    shown = run("--no-agents", **env).stdout
    assert "evil" in shown and "\x1b" not in shown
