"""Asking everything, each question with a deadline of its own: what hangs or fails is a finding, and stops no other."""

from __future__ import annotations

import asyncio
import resource
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from typing import TypeVar
from uuid import uuid4

import structlog

from outlast.shared.broker import BrokerUnfit
from outlast.shared.connections import Connection, Database, Dedicated, place
from outlast.shared.domain.errors import OutlastError, Unfit
from outlast.shared.domain.findings import Finding, Severity, error, worst
from outlast.shared.lakebase import Lakebase
from outlast.shared.lakebase.faults import LoginFault, LoginRefused
from outlast.shared.notifications import seconds_to_arrive
from outlast.shared.settings import Settings, SettingsError
from outlast.shared.store import diagnosis, granting, overview, plans, schema
from outlast.shared.store.diagnosis import ServerFacts

from . import broker, database, lakebase, machine, workers
from .asking_broker import BrokerError, ask_broker
from .wording import UNREADABLE, redis_place

log = structlog.get_logger()
T = TypeVar("T")

CHECK_SECONDS = 5.0
"""One question and its answer."""
_LOGIN_SECONDS = 15.0
"""The first login to Lakebase: databricks-sdk is loaded, and asks four things."""
ALL_SECONDS = 20.0
"""All of them together; what is left then is not looked at."""
_NOTIFICATION_SECONDS = 2.0
_LOOKS_AT_CLOCK = 3
_LEASES_OVERDUE = 2  # leases' lengths; the sweep looks twice a second
_LEAST_OVERDUE_SECONDS = 10.0
_DATABASE_FIX = "Start the database, or correct DATABASE_URL: psql with the same URL says more."
_LAKEBASE_FIX = "A suspended one wakes within seconds: look again. Else see its status: Compute > Lakebase Postgres."
_BROKER_FIX = "Start the broker, or correct REDIS_URL: redis-cli -u with the same URL says more."


@dataclass(frozen=True, slots=True)
class Examination:
    status: Severity
    """The worst of them."""
    findings: Sequence[Finding]
    version: str
    """Of the Outlast that looked."""
    checked_at: float
    """Seconds since 1970."""
    seconds: float
    """How long it took."""


async def examine(settings: Settings) -> Examination:
    """Look at database, broker, workers and this machine. Raises nothing; takes ALL_SECONDS at most."""
    began, checked_at = time.monotonic(), time.time()
    parts = await asyncio.gather(_DatabaseExaminer(settings, began).examine(), _examine_broker(settings))
    findings = [finding for part in parts for finding in part]
    findings += machine.judge_files(_most_files())
    return Examination(worst(findings), findings, version("outlast"), checked_at, time.monotonic() - began)


async def _checked(
    name: str, work: Awaitable[list[Finding]], *, fix: str, seconds: float = CHECK_SECONDS
) -> list[Finding]:
    try:
        async with asyncio.timeout(seconds):
            return await work
    except TimeoutError:
        return [error(name, f"There was no answer within {seconds:.2g} s.", fix)]
    except OutlastError as problem:
        return [error(name, f"{problem.message.rstrip('.')}.", fix)]
    except Exception as problem:  # a server that is only like Postgres or Redis may refuse any question
        log.debug("doctor.check_failed", check=name, exc_info=True)
        return [error(name, f"It could not be looked at: {type(problem).__name__}.", fix)]


# -- the database and what is in it ------------------------------------------------------------------------------------


class _DatabaseExaminer:
    """Two connections, for one question at a time."""

    def __init__(self, settings: Settings, began: float) -> None:
        self._settings = settings
        self._ends_at = began + ALL_SECONDS
        self._place = UNREADABLE
        self._database_fix = _DATABASE_FIX
        self._server: ServerFacts | None = None
        self._is_permitted = self._has_schema = False
        self._children: list[int] = []

    async def examine(self) -> list[Finding]:
        if not self._settings.names_database:
            return [error("database", "DATABASE_URL is not set.", "DATABASE_URL=postgresql://user:password@host/name")]
        try:
            opened = Database.of(self._settings, application="outlast doctor")
        except SettingsError as wrong:
            return [
                error("database", f"{wrong.message.removesuffix('.')}.", "Set or correct the variable that it names.")
            ]
        self._place = str(opened.lakebase.target) if opened.lakebase else _place_of(self._settings)
        if opened.lakebase is not None:
            self._database_fix = _LAKEBASE_FIX
        found = await self._workspace(opened.lakebase)
        if worst(found) is Severity.ERROR:  # without a login nothing can be asked
            return found
        self._first, self._second = opened.dedicated(), opened.dedicated()
        try:
            return found + await self._ask_all()
        finally:
            await self._first.close()
            await self._second.close()

    async def _workspace(self, opened: Lakebase | None) -> list[Finding]:
        if opened is None:
            return lakebase.judge_overruled(self._settings)
        fix = "Is DATABRICKS_HOST right, and does this machine reach it?"
        return await _checked("lakebase", lakebase.look(opened, self._settings), fix=fix, seconds=_LOGIN_SECONDS)

    async def _ask_all(self) -> list[Finding]:
        found = await self._check("database", self._reach)
        if self._server is None:  # nothing else can be asked, and it has been said
            return found
        for name, question in (
            ("session", self._sessions),
            ("jit", self._compiling),
            ("permissions", self._grants),
            ("schema", self._schema),
            ("listen", self._listening),
            ("notifications", self._notification_queue),
            ("transactions", self._transactions),
            ("clocks", self._clock),
        ):
            found += await self._check(name, question)
        if self._has_schema:
            for name, question in (
                ("plans", self._plans),
                ("tables", self._tables),
                ("workers", self._workers),
                ("leases", self._leases),
                ("connections", self._connections),
            ):
                found += await self._check(name, question)
        return found

    async def _check(self, name: str, question: Callable[[], Awaitable[list[Finding]]]) -> list[Finding]:
        seconds = min(CHECK_SECONDS, self._ends_at - time.monotonic())
        if seconds <= 0:
            return [error(name, "It was not looked at: the database takes too long to answer.", self._database_fix)]
        return await _checked(name, question(), fix=self._database_fix, seconds=seconds)

    async def _reach(self) -> list[Finding]:
        try:
            facts = await self._first.run(diagnosis.server)
        except (LoginFault, LoginRefused) as fault:
            return [lakebase.judge_fault(fault)]
        except Unfit as refusal:
            return [database.judge_unfit(refusal.message)]
        except OutlastError as problem:
            said = problem.message.rstrip(".")
            return [error("database", f"{said} ({self._place}).", self._database_fix)]
        self._server = facts
        _, uncertain = await _clock_ahead(self._first)
        return database.judge_server(facts, place=self._place, seconds=2 * uncertain)

    async def _sessions(self) -> list[Finding]:
        return database.judge_sessions(await self._with_both(diagnosis.sessions))

    async def _compiling(self) -> list[Finding]:
        return [database.judge_compiling(await self._first.run(plans.compiling))]

    async def _grants(self) -> list[Finding]:
        facts = await self._first.run(lambda c: diagnosis.grants(c, self._settings.db_schema))
        found = database.judge_grants(facts) if facts is not None else []
        self._is_permitted = worst(found) is Severity.OK
        return found

    async def _schema(self) -> list[Finding]:
        if not self._is_permitted:  # the permissions have said it
            return []
        found = await self._first.run(schema.version)
        self._has_schema = found == schema.NEEDED_VERSION
        if found is None and (maker := await self._first.run(granting.may_make_schemas)).lacks:
            return [database.judge_maker(maker, name=self._settings.db_schema)]
        return database.judge_schema(found, needed=schema.NEEDED_VERSION, name=self._settings.db_schema)

    async def _listening(self) -> list[Finding]:
        async def ask(listening: Connection, notifying: Connection) -> float | None:
            token = uuid4().hex
            return await seconds_to_arrive(
                listening, notifying, self._settings.db_schema, token, patience_seconds=_NOTIFICATION_SECONDS
            )

        seconds = await self._with_both(ask)
        return database.judge_listening(seconds, patience_seconds=_NOTIFICATION_SECONDS, tail=self._settings.tail)

    async def _notification_queue(self) -> list[Finding]:
        usage = await self._first.run(diagnosis.notification_queue)
        return database.judge_notification_queue(usage, await self._first.run(diagnosis.transactions))

    async def _transactions(self) -> list[Finding]:
        assert self._server is not None
        open_now = await self._first.run(diagnosis.transactions)
        ours = [session for session in open_now if session.database == self._server.database]
        prepared, slots = await self._first.run(diagnosis.prepared), await self._first.run(diagnosis.slots)
        return database.judge_transactions(ours, prepared, slots, server=self._server)

    async def _clock(self) -> list[Finding]:
        ahead, uncertain = await _clock_ahead(self._first)
        lease = self._settings.lease_seconds
        return [machine.judge_clock(ahead, whose="database", uncertain_seconds=uncertain, lease_seconds=lease)]

    async def _plans(self) -> list[Finding]:
        return database.judge_indexes(await self._first.run(plans.indexes))

    async def _tables(self) -> list[Finding]:
        return database.judge_tables(await self._first.run(diagnosis.tables))

    async def _workers(self) -> list[Finding]:
        beat = self._settings.beat_seconds
        seen = await self._first.run(lambda c: overview.read(c, submitted_seconds=1, beat_seconds=beat))
        self._children = [worker.children for worker in seen.workers if worker.alive]
        return workers.judge_workers(seen, version=version("outlast")) + workers.judge_queues(seen)

    async def _leases(self) -> list[Finding]:
        overdue = max(_LEAST_OVERDUE_SECONDS, _LEASES_OVERDUE * self._settings.lease_seconds)
        return workers.judge_leases(await self._first.run(lambda c: diagnosis.overdue_leases(c, seconds=overdue)))

    async def _connections(self) -> list[Finding]:
        facts = await self._first.run(diagnosis.connections)
        replicas = max(facts.replicas, 1)  # those with OUTLAST_TAIL=poll cannot be counted
        facts = replace(facts, replicas=replicas)
        needed = database.connections_needed(self._settings, replicas=replicas, children=self._children)
        return database.judge_connections(facts, needed=needed, workers=len(self._children))

    async def _with_both(self, work: Callable[[Connection, Connection], Awaitable[T]]) -> T:
        return await self._first.run(lambda first: self._second.run(lambda second: work(first, second)))


async def _clock_ahead(connection: Dedicated) -> tuple[float, float]:
    """How far the database's clock is ahead of this machine's, and how uncertain that is, by the quickest answer."""
    looks: list[tuple[float, float]] = []
    for _ in range(_LOOKS_AT_CLOCK):
        local, began = time.time(), time.monotonic()
        theirs = await connection.run(diagnosis.clock)
        half = (time.monotonic() - began) / 2
        looks.append((theirs - local - half, half))
    return min(looks, key=lambda look: look[1])


# -- the broker and this machine ---------------------------------------------------------------------------------------


async def _examine_broker(settings: Settings) -> list[Finding]:
    if settings.redis_url is None:
        return [error("broker", "REDIS_URL is not set.", "REDIS_URL=redis://host:6379/0")]
    return await _checked("broker", _ask_broker(settings, settings.required_redis_url()), fix=_BROKER_FIX)


async def _ask_broker(settings: Settings, url: str) -> list[Finding]:
    where = redis_place(url)
    try:
        facts = await ask_broker(url, schema=settings.db_schema, queues=settings.queues)
    except BrokerUnfit as problem:
        return [error("broker", f"{problem.seen} ({where}).", f"{problem.fix}.")]
    except BrokerError as problem:
        seen = f"The broker ({where}) cannot be asked: {problem}. New runs wait up to a beat for a worker."
        return [error("broker", seen, _BROKER_FIX)]
    clock = machine.judge_clock(
        facts.clock_ahead_seconds,
        whose="broker",
        uncertain_seconds=facts.seconds / 2,
        lease_seconds=settings.lease_seconds,
    )
    return [*broker.judge_broker(facts, place=where), clock]


def _most_files() -> int | None:
    """What an API raises its limit to (it does so by itself)."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    return None if hard == resource.RLIM_INFINITY else hard


def _place_of(settings: Settings) -> str:
    return place(settings.required_database_url()) or UNREADABLE
