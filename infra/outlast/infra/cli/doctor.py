"""``outlast doctor``: what is wrong, and what mends it. It changes nothing."""

from __future__ import annotations

import asyncio
import difflib
import os
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from importlib.metadata import version
from urllib.parse import unquote, urlsplit

from outlast.infra.migrate import checkpoints_are_current, checkpoints_made_by
from outlast.shared.connections import Database
from outlast.shared.doctor.examination import Examination, examine as examine_services
from outlast.shared.domain.errors import OutlastError
from outlast.shared.domain.findings import Finding, Severity, error, ok, warning, worst
from outlast.shared.domain.plain_text import on_a_line
from outlast.shared.settings import Settings, SettingsError, variables
from outlast.shared.wire import from_json

from .operators import operators_settings
from .terminal import echo, echo_json

_AGENTS_SECONDS = 60.0  # importing a graph takes a second or two, and its models perhaps more
_CHECKPOINTS_SECONDS = 5.0
_NOT_SETTINGS = {"OUTLAST_URL", "OUTLAST_API_KEY"}
_OF_TESTS = ("OUTLAST_TEST_", "OUTLAST_DEV_")


def examine(*, as_json: bool, strict: bool, with_agents: bool) -> int:
    """Returns the exit code: 1 when something is wrong, and when something is doubtful if ``strict``."""
    try:
        config = operators_settings()
    except SettingsError as problem:
        fix = "Correct the variable or its line in outlast.toml: docs/configuration.md lists all of them."
        found = [error("settings", f"{problem.message}.", fix)]
        seen = Examination(worst(found), found, version("outlast"), time.time(), 0.0)
    else:
        seen = asyncio.run(_examine(config, with_agents=with_agents))
    if as_json:
        echo_json(seen)
    else:
        echo("\n".join(drawn(seen)))
    return int(seen.status is Severity.ERROR or (strict and seen.status is Severity.WARNING))


async def _examine(config: Settings, *, with_agents: bool) -> Examination:
    services, agents, checkpoints = await asyncio.gather(
        examine_services(config), _agents(config) if with_agents else _nothing(), _checkpoints(config)
    )
    found = [*judge_settings(config, os.environ), *agents, *services.findings, *checkpoints]
    return replace(services, status=worst(found), findings=found)


async def _nothing() -> list[Finding]:
    return []


# -- settings ----------------------------------------------------------------------------------------------------------


def judge_settings(config: Settings, environment: Mapping[str, str]) -> list[Finding]:
    """Values and relations are right, or there would be no settings: left are names that mean nothing."""
    found: list[Finding] = []
    known = variables()
    for name in sorted(environment):
        if name.startswith("OUTLAST_") and name not in known | _NOT_SETTINGS and not name.startswith(_OF_TESTS):
            meant = difflib.get_close_matches(name, known, n=1)
            fix = f"Perhaps {meant[0]} is meant." if meant else f"unset {name} (docs/configuration.md lists all)"
            found.append(warning("settings", f"{name} is set, and no setting has this name.", fix))
    if not config.agents:
        fix = "OUTLAST_AGENTS=name=module:attribute, the first is the default"
        seen = "OUTLAST_AGENTS is not set here: an API or a worker with these settings would not start."
        found.append(warning("settings", seen, fix))
    return found or [ok("settings", "The settings are complete and agree with each other.")]


# -- agents ------------------------------------------------------------------------------------------------------------


async def _agents(config: Settings) -> list[Finding]:
    """In a process of their own: importing may print, hang or exit."""
    if not config.agents:
        return []
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "outlast.infra.cli", "agents", "--json"),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        async with asyncio.timeout(_AGENTS_SECONDS):
            said, complaint = await process.communicate()
    except TimeoutError:
        process.kill()
        await process.wait()
        seen = f"Loading the agents has not ended within {_AGENTS_SECONDS:g} s."
        return [error("agents", seen, "See what their modules do when they are imported: outlast agents")]
    return judge_agents(said, complaint, secrets=_secrets(config))


def judge_agents(said: bytes, complaint: bytes, *, secrets: Sequence[str]) -> list[Finding]:
    """``said`` and ``complaint``: what `outlast agents --json` has written. Modules may quote secrets in errors."""
    fix = "Try it alone: outlast agents"
    try:
        wrong: dict[str, str | None] = from_json(said.strip().rpartition(b"\n")[2])
    except ValueError:
        last = complaint.decode(errors="replace").strip().rpartition("\n")[2]
        return [error("agents", f"Loading the agents ended early: {_without(secrets, last) or 'no word'}.", fix)]
    if bad := {name: message for name, message in wrong.items() if message}:
        return [error("agents", f"{_without(secrets, message)}.", fix) for message in bad.values()]
    return [ok("agents", f"All agents can be loaded: {', '.join(wrong)}.")]


def _secrets(config: Settings) -> list[str]:
    found: list[str] = []
    for given in (config.database_url, config.redis_url):
        url = given.get_secret_value() if given else ""
        password = urlsplit(url).password if "://" in url else None
        found += [part for part in (url, password, unquote(password or "")) if part]
    return found


def _without(secrets: Sequence[str], text: str) -> str:
    for secret in secrets:
        text = text.replace(secret, "…")
    return text


# -- checkpoints -------------------------------------------------------------------------------------------------------


async def _checkpoints(config: Settings) -> list[Finding]:
    """LangGraph's tables, where it is installed and the database answers: that it does not is said elsewhere."""
    if checkpoints_made_by() is None or not config.names_database:
        return []
    try:
        database = Database.of(config, application="outlast doctor")
        async with asyncio.timeout(_CHECKPOINTS_SECONDS):
            current = await checkpoints_are_current(database)
    except (OutlastError, TimeoutError):
        return []
    if current:
        return [ok("checkpoints", f"LangGraph's tables are those of {checkpoints_made_by()}.")]
    return [error("checkpoints", f"LangGraph's tables are not those of {checkpoints_made_by()}.", "outlast migrate")]


# -- what it shows -----------------------------------------------------------------------------------------------------


def drawn(seen: Examination) -> list[str]:
    lines = [line for finding in seen.findings for line in _lines(finding)]
    counts = {severity: sum(finding.severity is severity for finding in seen.findings) for severity in Severity}
    wrong = [f"{count} {severity}{'' if count == 1 else 's'}" for severity, count in counts.items() if count]
    told = ", ".join(wrong[1:] if counts[Severity.OK] else wrong) or "All is well"
    return [*lines, "", f"{told} · {len(seen.findings)} findings in {seen.seconds:.1f} s"]


def _lines(finding: Finding) -> list[str]:
    lines = [f"{finding.severity:<8} {finding.check:<14} {on_a_line(finding.seen)}"]
    return lines + ([f"{'':<8} {'':<14} → {on_a_line(finding.fix)}"] if finding.fix else [])
