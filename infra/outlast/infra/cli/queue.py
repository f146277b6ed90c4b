"""``outlast queue``: what waits, what runs and who works, on one screen."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import sys
from collections.abc import Sequence

from outlast.shared.connections import Dedicated
from outlast.shared.domain.errors import Unavailable
from outlast.shared.domain.runs import RunStatus
from outlast.shared.settings import Settings
from outlast.shared.store import overview, schema
from outlast.shared.store.overview import COUNTED_MOST, Overview, QueueState, WorkerState

from .operators import operators_database, operators_settings, span, table
from .terminal import echo, echo_json, redraw

_FIRST_SECONDS = 10.0  # what the first look counts as lately submitted
_PATIENCE_SECONDS = 5.0


def show(*, interval: float, once: bool, as_json: bool) -> int:
    """Returns the exit code: 1 when one look was asked for and the database is away. Raises OutlastError."""
    config = operators_settings()
    with contextlib.suppress(KeyboardInterrupt):
        if once or as_json or not sys.stdout.isatty():
            asyncio.run(_look_once(config, as_json=as_json))
        else:
            asyncio.run(_Screen(config, interval).refresh_forever())
    return 0


async def _look_once(config: Settings, *, as_json: bool) -> None:
    connection = operators_database(config).dedicated()
    try:
        await connection.run(schema.check)
        seen = await _look(connection, config, _FIRST_SECONDS)
    finally:
        await connection.close()
    if as_json:
        echo_json(seen)
    else:
        echo("\n".join(drawn(seen, None)))


class _Screen:
    """Draws again and again, and says so while it cannot."""

    def __init__(self, config: Settings, interval: float) -> None:
        self._config = config
        self._interval = interval
        self._connection = operators_database(config).dedicated()
        self._seen: Overview | None = None
        self._seen_at = 0.0

    async def refresh_forever(self) -> None:
        try:
            await self._check_schema()
            while True:
                self._draw(await self._lines())
                await asyncio.sleep(self._interval)
        finally:
            await self._connection.close()

    async def _check_schema(self) -> None:
        """Another schema than ours is an error; a database that is away is not."""
        with contextlib.suppress(Unavailable):
            await self._connection.run(schema.check)

    async def _lines(self) -> list[str]:
        now = asyncio.get_running_loop().time()
        since = now - self._seen_at if self._seen else _FIRST_SECONDS
        try:
            async with asyncio.timeout(_PATIENCE_SECONDS):
                seen = await _look(self._connection, self._config, since)
        except (Unavailable, TimeoutError) as error:
            why = error.message if isinstance(error, Unavailable) else "The database does not answer."
            self._seen = None  # what happened meanwhile belongs to no interval
            return [f"{why.rstrip('.')}. Trying again every {self._interval:g} s; Ctrl-C ends."]
        before, self._seen, self._seen_at = self._seen, seen, now
        return [*drawn(seen, before), "", f"every {self._interval:g} s; Ctrl-C ends"]

    def _draw(self, lines: Sequence[str]) -> None:
        size = shutil.get_terminal_size()
        redraw([line[: size.columns] for line in lines[: size.lines - 1]])


async def _look(connection: Dedicated, config: Settings, seconds: float) -> Overview:
    return await connection.run(lambda c: overview.read(c, submitted_seconds=seconds, beat_seconds=config.beat_seconds))


# -- what it shows -----------------------------------------------------------------------------------------------------


def drawn(seen: Overview, before: Overview | None) -> list[str]:
    """The screen's lines. Without an earlier look it is not known how fast runs end."""
    finished = "-" if before is None else f"{finished_between(before, seen) / seen.submitted_seconds:.1f}/s"
    lines = [
        f"queued {'' if seen.exact else 'about '}{seen.queued:,}   running {_counted(seen.running)}   "
        f"submitted {seen.submitted / seen.submitted_seconds:.1f}/s   finished {finished}",
        "",
        *table(("QUEUE", "READY", "WAITING", "RUNNING", "OLDEST"), [_queue(*item) for item in seen.queues.items()]),
    ]
    if not seen.queues:
        lines.append("Nothing is queued or running.")
    if seen.running_by_agent:
        agents = [(name, _counted(count)) for name, count in seen.running_by_agent.items()]
        lines += ["", *table(("AGENT", "RUNNING"), agents)]
    if seen.workers:
        headings = ("WORKER", "CHILDREN", "SLOTS", "RUNNING", "STATE", "SEEN", "UP", "VERSION")
        lines += ["", *table(headings, [_worker(worker) for worker in seen.workers])]
    if not any(worker.alive for worker in seen.workers):
        lines += ["", "No worker is alive: runs wait. `outlast worker` starts one."]
    return lines


def finished_between(before: Overview, now: Overview) -> int:
    """Runs that ended between two looks, as far as the workers that are there in both have counted."""
    ended = {worker.owner: _ended(worker) for worker in before.workers}
    return sum(_ended(worker) - ended.get(worker.owner, _ended(worker)) for worker in now.workers)


def _ended(worker: WorkerState) -> int:
    return sum(worker.counters.get(f"runs_{status}", 0) for status in RunStatus if status.terminal)


def _queue(name: str, queue: QueueState) -> tuple[str, ...]:
    oldest = span(queue.oldest_seconds) if queue.ready else "-"
    return name, _counted(queue.ready), _counted(queue.waiting), _counted(queue.running), oldest


def _worker(worker: WorkerState) -> tuple[str, ...]:
    state = "silent" if not worker.alive else "draining" if worker.draining else "working" if worker.running else "idle"
    name, seen, up = f"{worker.host}:{worker.pid}", f"{span(worker.seen_seconds)} ago", span(worker.up_seconds)
    return name, str(worker.children), str(worker.slots), str(worker.running), state, seen, up, worker.version


def _counted(count: int) -> str:
    return f"{count:,}+" if count >= COUNTED_MOST else f"{count:,}"
