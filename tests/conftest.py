"""The servers behind the tests: one Postgres and one Valkey for the whole run, a database of its own for each test."""

from __future__ import annotations

import asyncio
import logging
import os
import tempfile
import uuid
from collections.abc import AsyncGenerator, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import psycopg
import pytest
import redis
import structlog

from outlast.infra import checkpoint_tables
from outlast.infra.embedded import Postgres, Valkey
from outlast.infra.migrate import migrate, shipped
from outlast.shared.connections import Database, fixed
from outlast.shared.settings import Settings, load

ADMIN_URL = "OUTLAST_TEST_DATABASE_URL"
REDIS_URL = "OUTLAST_TEST_REDIS_URL"
TEMPLATE = "outlast_test_template"

_servers: list[Postgres | Valkey] = []

# As services log. The default would show the variables of every frame: half a minute for a graph that fails.
_plainly = structlog.dev.ConsoleRenderer(colors=False, exception_formatter=structlog.dev.plain_traceback)
structlog.configure(processors=[*structlog.get_config()["processors"][:-1], _plainly])
_configure = structlog.configure


def _configure_without_cache(**options: Any) -> None:
    """A logger that is kept from its first use on would log as one test has configured it in all later ones."""
    _configure(**{**options, "cache_logger_on_first_use": False})


structlog.configure = _configure_without_cache


def pytest_configure(config: pytest.Config) -> None:
    """Start what DATABASE_URL and REDIS_URL do not name, once; parallel processes inherit the addresses."""
    if hasattr(config, "workerinput") or config.option.collectonly or ADMIN_URL in os.environ:
        return
    folder = Path(tempfile.mkdtemp(prefix="outlast-tests-"))
    if "DATABASE_URL" in os.environ:
        os.environ[ADMIN_URL] = os.environ["DATABASE_URL"]
    else:
        postgres = Postgres(folder / "postgres", settings={"fsync": "off", "max_connections": "500"})
        postgres.start()
        _servers.append(postgres)
        os.environ[ADMIN_URL] = postgres.url
    if "REDIS_URL" in os.environ:
        os.environ[REDIS_URL] = os.environ["REDIS_URL"]
    else:
        valkey = Valkey(folder / "valkey")
        valkey.start()
        _servers.append(valkey)
        os.environ[REDIS_URL] = valkey.url
    # What the developer has set for Outlast is not what the tests are about.
    for name in [name for name in os.environ if name.startswith("OUTLAST_") and name not in (ADMIN_URL, REDIS_URL)]:
        del os.environ[name]
    theirs = ("ASSISTANT_", "DATABRICKS_", "LAKEBASE_", "LANGCHAIN_", "LANGSMITH_", "OPENAI_", "OTEL_", "PG")
    for name in [
        name for name in os.environ if name.startswith(theirs) or name in ("DATABASE_URL", "REDIS_URL", "PORT")
    ]:
        del os.environ[name]
    _make_template()


def pytest_unconfigure(config: pytest.Config) -> None:
    for server in _servers:
        server.stop()


def _make_template() -> None:
    with psycopg.connect(os.environ[ADMIN_URL], autocommit=True) as connection:
        connection.execute(f"DROP DATABASE IF EXISTS {TEMPLATE} WITH (FORCE)")  # type: ignore[arg-type]
        connection.execute(f"CREATE DATABASE {TEMPLATE}")  # type: ignore[arg-type]
    database = Database(fixed(named(os.environ[ADMIN_URL], TEMPLATE)), schema="outlast", application="tests")
    asyncio.run(_migrate(database))


async def _migrate(database: Database) -> None:
    await migrate(database, shipped())
    await checkpoint_tables.prepare(database)


def named(url: str, database: str) -> str:
    parts = urlsplit(url)
    return urlunsplit((parts.scheme, parts.netloc, f"/{database}", parts.query, parts.fragment))


@contextmanager
def a_database() -> Generator[str]:
    """The address of a migrated database, which is dropped afterwards."""
    name = f"test_{uuid.uuid4().hex}"
    with psycopg.connect(os.environ[ADMIN_URL], autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name} TEMPLATE {TEMPLATE}")  # type: ignore[arg-type]
    yield named(os.environ[ADMIN_URL], name)
    with psycopg.connect(os.environ[ADMIN_URL], autocommit=True) as connection:
        connection.execute(f"DROP DATABASE {name} WITH (FORCE)")  # type: ignore[arg-type]


@pytest.fixture
def database_url() -> Generator[str]:
    """A migrated database of the test's own."""
    with a_database() as url:
        yield url


@pytest.fixture(scope="module")
def shared_database_url() -> Generator[str]:
    """A migrated database for all tests of a module."""
    with a_database() as url:
        yield url


@pytest.fixture(scope="session")
def broker_url(worker_id: str) -> str:
    """A Redis database of this test process's own."""
    number = int(worker_id.removeprefix("gw")) + 1 if worker_id.startswith("gw") else 0
    base, _, _ = os.environ[REDIS_URL].partition("?db=")
    return f"{base}?db={number}" if base.startswith("unix:") else base.rpartition("/")[0] + f"/{number}"


@pytest.fixture
def redis_url(broker_url: str) -> str:
    """The same, empty."""
    with redis.Redis.from_url(broker_url) as client:
        client.flushdb()
    return broker_url


@pytest.fixture
def settings(database_url: str, redis_url: str) -> Settings:
    """Settings with the waits shortened, but for that of suspension: in one loop a slow machine is a stopped parent."""
    shortened = load(
        database_url=database_url,
        redis_url=redis_url,
        agents={"test": "tests:agent"},
        beat_seconds=0.2,
        lease_seconds=1.0,
        sweep_seconds=0.1,
        drain_seconds=0.2,
        poll_interval_seconds=0.2,
        ping_seconds=0.5,
    )
    return shortened.model_copy(update={"self_fence_seconds": 60.0})


@pytest.fixture
async def database(database_url: str) -> AsyncGenerator[Database]:
    async with Database(fixed(database_url), schema="outlast", application="tests").pooled(max_connections=5) as opened:
        yield opened


@pytest.fixture(autouse=True)
def plain_logging() -> Generator[None]:
    """What a test configures, or a command that it runs, is taken back."""
    root, before = logging.getLogger(), structlog.get_config()
    handlers, level = root.handlers[:], root.level
    levels = {name: logging.getLogger(name).level for name in ("psycopg", "celery", "kombu", "httpx", "httpx2", "amqp")}
    yield
    structlog.configure(**before)
    root.handlers[:], root.level = handlers, level
    for name, was in levels.items():
        logging.getLogger(name).setLevel(was)
