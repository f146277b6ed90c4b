"""``outlast runs``: what is there, read from the database; following and cancelling go through the API."""

from __future__ import annotations

import importlib
from datetime import UTC, datetime
from typing import Annotated, Any
from uuid import UUID

import typer

from outlast.shared.domain.errors import OutlastError, RunNotFound
from outlast.shared.domain.ids import parse_response_id, response_id
from outlast.shared.domain.runs import RunStatus, RunSummary
from outlast.shared.store import events, runs as store
from outlast.shared.wire import event_from

from .operators import fail, with_database

app = typer.Typer(no_args_is_help=True, pretty_exceptions_enable=False, rich_markup_mode=None)
Id = Annotated[str, typer.Argument(help="resp_…")]
Url = Annotated[str | None, typer.Option(envvar="OUTLAST_URL", help="The API; the running `outlast dev` otherwise.")]


@app.command("list")
def list_runs(
    limit: Annotated[int, typer.Option(min=1, max=1000)] = 20,
    status: Annotated[RunStatus | None, typer.Option(help="Only runs in this status.")] = None,
) -> None:
    """The newest runs."""
    found = with_database(lambda c: store.recent(c, limit=limit, status=status))
    for run in found:
        typer.echo(_line(run))
    if not found:
        typer.echo("No runs.", err=True)


@app.command()
def show(id: Id) -> None:
    """One run: its times, attempts and events."""
    run_id = _parse(id)
    summary = with_database(lambda c: store.summary(c, run_id))
    if summary is None:
        fail(RunNotFound(f"There is no run {id}."))
    typer.echo(_line(summary))
    typer.echo(f"thread     {summary.thread}")
    for number, line in enumerate(with_database(lambda c: events.read_all(c, run_id))):
        event = event_from(line)
        delta = event.fields.get("delta")
        typer.echo(f"{number:>6}  {event.type}" + (f"  {delta!r}"[:80] if delta else ""))


@app.command()
def follow(
    id: Id,
    starting_after: Annotated[int, typer.Option(help="Only what comes after this event.")] = -1,
    url: Url = None,
) -> None:
    """Stream a run, from its beginning or from any event, to its end."""
    try:
        raise typer.Exit(_ask().follow(id, starting_after=starting_after, url=url))
    except OutlastError as error:
        fail(error)


@app.command()
def cancel(id: Id, url: Url = None) -> None:
    """End a run; what it has said so far is kept."""
    try:
        typer.echo(f"{id} is {_ask().client(url).cancel(id)['status']}")
    except OutlastError as error:
        fail(error)


def _ask() -> Any:
    return importlib.import_module("outlast.infra.cli.ask")  # with an HTTP client, which reading does not need


def _parse(id: str) -> UUID:
    run_id = parse_response_id(id)
    if run_id is None:
        fail(RunNotFound(f"{id} is not the id of a run: resp_ and 32 hexadecimal digits."))
    return run_id


def _line(run: RunSummary) -> str:
    ended = run.finished_at or datetime.now(UTC)
    took = f"{(ended - run.started_at).total_seconds():.1f} s" if run.started_at else "-"
    when = run.created_at.astimezone().strftime("%Y-%m-%d %H:%M:%S")
    retries = f" ({run.retries} retried)" if run.retries else ""
    return (
        f"{response_id(run.run_id)}  {run.status:<11}  {run.agent:<16}  {when}  "
        f"attempt {run.attempt}{retries}  {run.last_seq + 1} events  {took}"
    )
