"""``outlast workers``: who is there, as they report themselves; and their orderly end."""

from __future__ import annotations

from typing import Annotated

import typer

from outlast.shared.connections import Connection
from outlast.shared.domain.errors import Invalid, NotFound
from outlast.shared.hints import tell_awake
from outlast.shared.store import overview, workers as store

from . import drawing
from .operators import fail, operators_settings, with_database
from .terminal import echo, echo_json, echo_line

app = typer.Typer(invoke_without_command=True, pretty_exceptions_enable=False, rich_markup_mode=None)


@app.callback()
def list_workers(
    context: typer.Context,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line.")] = False,
) -> None:
    """The workers that reported within the last minute or so and did not end by themselves."""
    if context.invoked_subcommand is not None:
        return
    found = with_database(_seen)
    if as_json:
        for worker in found:
            echo_json(worker)
    else:
        for line in drawing.workers(found):
            echo(line)
    if not any(worker.alive for worker in found):
        echo("No worker is alive: runs wait. `outlast worker` starts one.", err=True)


@app.command()
def drain(
    names: Annotated[list[str] | None, typer.Argument(metavar="[NAME]...", help="host:pid, or the whole name.")] = None,
    everyone: Annotated[bool, typer.Option("--all", help="Every worker.")] = False,
) -> None:
    """Have workers end as by SIGTERM: they claim nothing more, let runs end, hand back the rest, and exit with 0.

    Each hears of it with its next beat. What keeps workers running where they are may start another.
    """
    if bool(names) == everyone:
        fail(Invalid("Which workers? Give names, as `outlast workers` shows them, or --all."))
    known = {name for worker in with_database(_seen) for name in (worker.owner, f"{worker.host}:{worker.pid}")}
    for name in names or ():
        if name not in known:
            fail(NotFound(f"There is no worker {name!r}: `outlast workers` shows who is there."))
    asked = with_database(lambda c: store.request_drain(c, names or None))
    if (config := operators_settings()).redis_url is not None:
        tell_awake(config.required_redis_url(), config.db_schema)  # one that rests would find it much later
    for owner in asked:
        echo_line(f"{owner} is asked to drain")
    if not asked:
        echo("No workers.", err=True)


async def _seen(connection: Connection) -> list[overview.WorkerState]:
    return await overview.workers(connection, beat_seconds=operators_settings().beat_seconds)
