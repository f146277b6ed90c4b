"""What operators look at: runs of all principals, by what they have in common. Bounded however many there are.

Where no index has what is asked for, the newest `LOOKED_AT_MOST` runs are looked at, and the answer says so.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any, LiteralString
from uuid import UUID

from outlast.shared.connections import Connection
from outlast.shared.domain.operating import RunFilter, RunState
from outlast.shared.domain.runs import RunStatus
from outlast.shared.wire import from_json, to_json

from .pinning import pin

LOOKED_AT_MOST = 10_000
_LAST = UUID(int=2**128 - 1)

# Code and message of a response's error: JSON without its last brace. No string can hold this: its quotes are escaped.
_ERROR = r"""CASE WHEN r.status = 'failed' THEN substring(
    r.response FROM '"error":(\{"code":"(?:[^"\\]|\\.)*","message":"(?:[^"\\]|\\.)*")') END"""
_STATES = f"""
SELECT r.id, r.status, r.principal, t.name, r.agent, r.queue, r.ready, r.attempt, r.retries, r.charged_attempts,
       r.forgiven_attempts, r.reopened, r.last_cause, r.created_at, r.started_at, r.finished_at, r.deadline_at,
       r.cancel_requested_at, l.owner, l.claimed_at,
       extract(epoch FROM l.lease_until - clock_timestamp())::float8, h.last_seq, {_ERROR}
FROM runs r JOIN run_heads h ON h.run_id = r.id JOIN threads t ON t.id = r.thread_id
LEFT JOIN run_leases l ON l.run_id = r.id
WHERE r.id = ANY(%b::uuid[]) ORDER BY r.id DESC
"""
# Ids begin with the time in milliseconds, so that an age is a place in every index of them.
_BEFORE = """least(%(after)s::uuid, (lpad(to_hex((
    extract(epoch FROM now() - make_interval(secs => %(older_than_seconds)s)) * 1000)::bigint), 12, '0')
    || repeat('0', 20))::uuid)"""
_FILTER = """(%(status)s::text IS NULL OR r.status = %(status)s)
    AND (%(agent)s::text IS NULL OR r.agent = %(agent)s)
    AND (%(principal)s::text IS NULL OR r.principal = %(principal)s)
    AND (%(error)s::text IS NULL OR (r.status = 'failed' AND strpos(r.response, %(error)s) > 0))"""
_NEWEST = f"SELECT id FROM runs WHERE id < {_BEFORE} ORDER BY id DESC LIMIT %(window)s"
_NEWEST_OF_PRINCIPAL = (
    f"SELECT id FROM runs WHERE principal = %(principal)s AND id < {_BEFORE} ORDER BY id DESC LIMIT %(window)s"
)
_UNSUCCESSFUL = f"""SELECT id FROM runs WHERE status IN ('failed', 'cancelled', 'incomplete') AND id < {_BEFORE}
    ORDER BY id DESC LIMIT %(window)s"""
_RUNNING = f"""SELECT id FROM runs WHERE status = 'in_progress' AND id < {_BEFORE}
    ORDER BY principal, agent LIMIT %(window)s"""
# All of a short queue; of a long one those that will be claimed first, and those that came last.
_QUEUED = f"""(SELECT id FROM runs WHERE status = 'queued' AND id < {_BEFORE}
    ORDER BY queue, principal, turn LIMIT %(window)s)
    UNION SELECT id FROM (
        SELECT id, status FROM runs WHERE id < {_BEFORE} ORDER BY id DESC LIMIT %(window)s) n WHERE status = 'queued'"""
# Not a join of the window: its order could then come from walking through all runs.
_LISTED = """
WITH w AS MATERIALIZED ({window})
SELECT (SELECT count(*) FROM w), (SELECT id FROM w ORDER BY id LIMIT 1), ARRAY(
    SELECT r.id FROM runs r WHERE r.id = ANY(ARRAY(SELECT id FROM w)) AND {filter}
    ORDER BY r.id DESC LIMIT %(limit)s + 1)
"""


@dataclass(frozen=True, slots=True)
class RunPage:
    """Runs, the newest first."""

    runs: Sequence[RunState]
    next_after: UUID | None
    """Where to go on; None when there are no more."""
    looked_at_all: bool
    """False: there may be more of them than these, among runs that were not looked at."""


async def page(connection: Connection, wanted: RunFilter, *, limit: int, after: UUID | None = None) -> RunPage:
    """The newest of the wanted runs; only those that are older than ``after``."""
    plain = wanted.status is None and wanted.agent is None and wanted.error_code is None
    window = limit + 1 if plain else LOOKED_AT_MOST
    values = {**_values(wanted), "after": after or _LAST, "limit": limit, "window": window}
    statement = _LISTED.format(window=_window(wanted), filter=_FILTER)
    async with connection.transaction(), connection.pipeline():
        await pin(connection)
        cursor = await connection.execute(statement, values, prepare=False)
        [(looked_at, oldest, ids)] = await cursor.fetchall()
    found = await states(connection, ids[:limit])
    looked_at_all = looked_at < window or plain
    next_after = ids[limit - 1] if len(ids) > limit else None if looked_at_all else oldest
    return RunPage(found, next_after, looked_at_all)


def _window(wanted: RunFilter) -> LiteralString:
    match wanted.status:
        case RunStatus.QUEUED:
            return _QUEUED
        case RunStatus.IN_PROGRESS:
            return _RUNNING
        case RunStatus.FAILED | RunStatus.CANCELLED | RunStatus.INCOMPLETE:
            return _UNSUCCESSFUL
        case _:
            return _UNSUCCESSFUL if wanted.error_code else _NEWEST_OF_PRINCIPAL if wanted.principal else _NEWEST


async def states(connection: Connection, run_ids: Collection[UUID]) -> list[RunState]:
    """Those of these runs that exist, the newest first."""
    cursor = await connection.execute(_STATES, (list(run_ids),), prepare=False)
    return [_state(row) for row in await cursor.fetchall()]


async def state(connection: Connection, run_id: UUID) -> RunState | None:
    found = await states(connection, [run_id])
    return found[0] if found else None


# -- in bulk -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Match:
    """A run that a bulk operation is about."""

    run_id: UUID
    agent: str
    status: RunStatus


_CANCELLABLE = f"""
SELECT id, agent, status FROM (
    (SELECT * FROM runs WHERE status = 'in_progress' ORDER BY principal, agent)
    UNION ALL (SELECT * FROM runs WHERE status = 'queued' ORDER BY queue, principal, turn)) r
WHERE r.cancel_requested_at IS NULL AND r.id < {_BEFORE} AND {_FILTER} LIMIT %(limit)s
"""
_RETRIABLE = f"""
SELECT id, agent, status FROM runs r
WHERE status IN ('failed', 'cancelled', 'incomplete') AND status = coalesce(%(status)s, 'failed')
AND id < {_BEFORE} AND {_FILTER} ORDER BY id LIMIT %(limit)s
"""


async def cancellable(connection: Connection, wanted: RunFilter, *, limit: int) -> list[Match]:
    """The wanted runs that have not ended and whose cancel nobody has asked for."""
    return await _matches(connection, _CANCELLABLE, wanted, limit)


async def cancellable_of(connection: Connection, run_ids: Sequence[UUID]) -> list[Match]:
    """The same of these."""
    cursor = await connection.execute(
        """SELECT id, agent, status FROM runs WHERE id = ANY(%b::uuid[]) AND status IN ('queued', 'in_progress')
           AND cancel_requested_at IS NULL ORDER BY id""",
        (list(run_ids),),
    )
    return [_match(row) for row in await cursor.fetchall()]


async def retriable(connection: Connection, wanted: RunFilter, *, limit: int) -> list[Match]:
    """The wanted runs, the oldest first; failed ones unless the filter names another status."""
    return await _matches(connection, _RETRIABLE, wanted, limit)


async def _matches(connection: Connection, statement: LiteralString, wanted: RunFilter, limit: int) -> list[Match]:
    async with connection.transaction(), connection.pipeline():
        await pin(connection)
        cursor = await connection.execute(statement, {**_values(wanted), "after": _LAST, "limit": limit}, prepare=False)
        rows = await cursor.fetchall()
    return [_match(row) for row in rows]


def _values(wanted: RunFilter) -> dict[str, Any]:
    code = None if wanted.error_code is None else to_json(wanted.error_code)
    return {
        "status": wanted.status and wanted.status.value,
        "agent": wanted.agent,
        "principal": wanted.principal,
        "older_than_seconds": wanted.older_than_seconds,
        "error": code and f'"error":{{"code":{code},"message":',
    }


def _match(row: tuple[Any, ...]) -> Match:
    return Match(row[0], row[1], RunStatus(row[2]))


def _state(row: tuple[Any, ...]) -> RunState:
    error: dict[str, Any] = from_json(row[-1] + "}") if row[-1] else {}
    return RunState(
        row[0], RunStatus(row[1]), *row[2:-1], error_code=error.get("code"), error_message=error.get("message")
    )
