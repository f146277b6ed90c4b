"""The parts that run alone: api, worker, migrate, agents. Each imports its own side only when it is started."""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import os
import socket
import sys
from typing import Any

from outlast.infra.migrate import Migration, checkpoints_are_current, checkpoints_made_by, migrate, shipped
from outlast.shared import logs, settings, tracing
from outlast.shared.connections import Database
from outlast.shared.domain.addresses import is_loopback
from outlast.shared.settings import Settings, SettingsError

from . import supervised
from .terminal import echo, echo_json

_OF_AN_APP = ("DATABRICKS_APP_NAME", "DATABRICKS_APP_PORT")


def run_api(host: str, port: int) -> None:
    config = settings.load()
    refuse_strangers(config, host)
    refuse_taken(host, port)
    logs.configure(config, part="api")
    tracing.configure(config, part="api")
    supervised.follow_parent()
    with supervised.telling_refusals():
        _side("api", "outlast.api.server").serve(config, host=host, port=port)


def run_worker(**given: int | None) -> int:
    config = settings.load(**{name: value for name, value in given.items() if value is not None})
    logs.configure(config, part="worker")
    supervised.follow_parent()
    with supervised.telling_refusals():
        return _side("worker", "outlast.worker.app").run_worker(
            config, on_ready=supervised.tell_ready, on_refusal=supervised.tell_refusal
        )


def configure_logs(config: Settings) -> None:
    """For a command, which says itself what it does and what is wrong: services' lines come with debug only."""
    quiet = config if config.log_level == "debug" else config.model_copy(update={"log_level": "error"})
    logs.configure(quiet, part="cli")


def run_migrate() -> None:
    config = settings.load()
    configure_logs(config)
    database = Database.of(config, application="outlast migrate")
    applied, checkpoints = asyncio.run(migrate_all(database))
    names = ", ".join(migration.name for migration in applied) or "nothing to do"
    echo(f"schema {config.db_schema}: {names}")
    echo(f"checkpoints: {'current' if checkpoints else 'left out, langgraph is not installed here'}")


async def migrate_all(database: Database) -> tuple[list[Migration], bool]:
    """Our schema, and LangGraph's tables where it is installed."""
    return await migrate(database, shipped()), await prepare_checkpoints(database)


async def prepare_checkpoints(database: Database) -> bool:
    """False where langgraph is not installed: an API host migrates without it, a worker host with it."""
    if checkpoints_made_by() is None:
        return False
    if await checkpoints_are_current(database):
        return True
    # In a thread: importing langgraph takes a second or two, in which `outlast dev` has other things to do.
    checkpoint_tables = await asyncio.to_thread(importlib.import_module, "outlast.infra.checkpoint_tables")
    await checkpoint_tables.prepare(database)
    return True


def list_agents(*, as_json: bool = False) -> int:
    config = settings.load()
    if not config.agents:
        raise SettingsError("OUTLAST_AGENTS is not set: name=module:attribute, the first is the default")
    loading, loops = _side("worker", "outlast.worker.agents.loading"), _side("worker", "outlast.worker.loops")
    wrong: dict[str, str | None] = {}
    kinds: dict[str, str] = {}
    for name, target in config.agents.items():
        try:
            # What an agent's module prints is not our answer; and some code is made for one loop only.
            quietly = contextlib.redirect_stdout(sys.stderr)
            with quietly, asyncio.Runner(loop_factory=loops.chosen(config)) as runner:
                kinds[name] = runner.run(_load(loading, name, target, config))
            wrong[name] = None
        except SettingsError as error:
            wrong[name] = error.message
    if as_json:
        echo_json(wrong)
    else:
        for name, target in config.agents.items():
            state = wrong[name] or ("default" if name == config.default_agent else "ok")
            echo(f"{name:<20} {target:<40} {state:<8} {kinds.get(name, '')}".rstrip())
    return int(any(wrong.values()))


async def _load(loading: Any, name: str, target: str, config: Settings) -> str:
    """Returns what the agent is and what it takes."""
    async with loading.loaded({name: target}, config.graph_options) as agents:
        return str(agents[name])


def _side(extra: str, module: str) -> Any:
    """A side's module. It may not be installed: an API host has no agent framework and a worker host no web server."""
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.startswith("outlast"):
            raise
        raise SettingsError(f"{error.name} is not installed: pip install 'outlast[{extra}]'") from None


def refuse_strangers(config: Settings, host: str) -> None:
    """Raise SettingsError for a server that would let in whoever reaches it, without having been told to."""
    if is_loopback(host):
        return
    if config.auth is None:
        raise SettingsError(
            f"{host} can be reached by others and OUTLAST_AUTH is not set. "
            "OUTLAST_AUTH=none lets in everybody who can reach it"
        )
    if config.auth == "databricks" and not any(os.environ.get(name) for name in _OF_AN_APP):
        raise SettingsError(
            f"OUTLAST_AUTH=databricks believes whoever names a user in X-Forwarded-User, {host} can be reached by "
            "others, and this is no Databricks App, whose proxy would keep them away: DATABRICKS_APP_NAME is not set"
        )


def refuse_taken(host: str, port: int) -> None:
    """Say so before anything is opened; the server's own words come late and with a traceback."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise SettingsError(f"{host}:{port}: {error.strerror}. Choose another with --port {port + 1}") from None


def settings_for_operators() -> Settings:
    """The settings, completed by the running `outlast dev` of this folder where the environment says nothing."""
    config = settings.load()
    running = supervised.running_dev(config)
    if not config.names_database and running is not None:
        return settings.load(database_url=running.database_url, redis_url=running.redis_url)
    return config
