"""``outlast runs``: all principals' runs, read and steered on the database; following goes through the API."""

from __future__ import annotations

import importlib
import os
from typing import Annotated, Any
from uuid import UUID

import typer

from outlast.shared.domain.errors import Invalid, OutlastError, RunNotFound
from outlast.shared.domain.ids import parse_response_id
from outlast.shared.domain.operating import RunFilter, described
from outlast.shared.domain.runs import RunStatus
from outlast.shared.store import events, operating
from outlast.shared.wire import event_from

from . import drawing, steering
from .operators import fail, operators_settings, seconds_of, with_connection, with_database
from .terminal import echo, echo_json, echo_line

app = typer.Typer(no_args_is_help=True, pretty_exceptions_enable=False, rich_markup_mode=None)
Id = Annotated[str, typer.Argument(metavar="ID", help="resp_…")]
Ids = Annotated[list[str] | None, typer.Argument(metavar="[ID]...", help="resp_…; or say which by options.")]
Url = Annotated[str | None, typer.Option(envvar="OUTLAST_URL", help="The API; the running `outlast dev` otherwise.")]
Status = Annotated[RunStatus | None, typer.Option(help="Only runs in this status.")]
Agent = Annotated[str | None, typer.Option(help="Only runs of this agent.")]
Principal = Annotated[str | None, typer.Option(help="Only runs of this principal.")]
OlderThan = Annotated[str | None, typer.Option(metavar="TIME", help="Only runs submitted so long ago: 90s, 1h, 7d.")]
ErrorCode = Annotated[str | None, typer.Option(help="Only runs that failed with this code.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Say how many, and change nothing.")]
Yes = Annotated[bool, typer.Option("--yes", help="Do not ask.")]
AsJson = Annotated[bool, typer.Option("--json", help="One JSON object a line.")]


@app.command("list")
def list_runs(
    limit: Annotated[int, typer.Option(min=1, max=1000)] = 20,
    status: Status = None,
    agent: Agent = None,
    principal: Principal = None,
    older_than: OlderThan = None,
    error_code: ErrorCode = None,
    after: Annotated[str | None, typer.Option(metavar="ID", help="Only runs that are older than this one.")] = None,
    as_json: AsJson = False,
) -> None:
    """The newest runs of all principals."""
    wanted = _wanted(status, agent, principal, older_than, error_code)
    before = None if after is None else _parse(after)
    page = with_database(lambda c: operating.page(c, wanted, limit=limit, after=before))
    if as_json:
        for run in page.runs:
            echo_json(described(run))
    else:
        for line in drawing.runs(page.runs):
            echo(line)
    if not page.runs:
        echo("No runs.", err=True)
    if note := drawing.what_was_left_out(page):
        echo(note, err=True)


@app.command()
def show(id: Id, as_json: AsJson = False) -> None:
    """One run: where it stands, how it came there, and its events."""
    run_id = _parse(id)
    run = with_database(lambda c: operating.state(c, run_id))
    if run is None:
        fail(RunNotFound(f"There is no run {id}."))
    if as_json:
        echo_json(described(run))
        return
    echo("\n".join(drawing.run(run)))
    for number, line in enumerate(with_database(lambda c: events.read_all(c, run_id))):
        event = event_from(line)
        delta = event.fields.get("delta")
        echo_line(f"{number:>6}  {event.type}" + (f"  {delta!r}"[:80] if delta else ""))


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
def cancel(
    ids: Ids = None,
    status: Status = None,
    agent: Agent = None,
    principal: Principal = None,
    older_than: OlderThan = None,
    dry_run: DryRun = False,
    yes: Yes = False,
    url: Annotated[str | None, typer.Option(help="Through this API, with OUTLAST_API_KEY: one's own runs.")] = None,
) -> None:
    """End runs, by their ids or all that the options mean; what they have said so far is kept.

    Works on the database; where none is configured, through the API that OUTLAST_URL names.
    """
    wanted = _wanted(status, agent, principal, older_than)
    _check_one_way(ids, wanted)
    if url := url or _only_api():
        _cancel_through_api(ids or [], url)
    elif ids:
        run_ids = [_parse(id) for id in ids]
        raise typer.Exit(with_connection(lambda c: steering.cancel(c, run_ids)))
    else:
        if status is not None and status.terminal:
            fail(Invalid(f"--status: what is {status} has ended, and cannot be cancelled."))
        raise typer.Exit(with_connection(lambda c: steering.cancel_all(c, wanted, dry_run=dry_run, yes=yes)))


@app.command()
def retry(
    ids: Ids = None,
    status: Status = None,
    agent: Agent = None,
    principal: Principal = None,
    older_than: OlderThan = None,
    error_code: ErrorCode = None,
    dry_run: DryRun = False,
    yes: Yes = False,
) -> None:
    """Give failed or cancelled runs a new attempt, which goes on from where the last one stopped.

    The run keeps its id, and its end is withdrawn: it is queued again, and whoever had read its events to the old end
    reads them again from the start. By options: failed runs, unless --status says cancelled.
    """
    wanted = _wanted(status, agent, principal, older_than, error_code)
    _check_one_way(ids, wanted)
    if ids:
        run_ids = [_parse(id) for id in ids]
        raise typer.Exit(with_connection(lambda c: steering.retry(c, run_ids)))
    if status not in (None, RunStatus.FAILED, RunStatus.CANCELLED):
        fail(Invalid("--status: only failed and cancelled runs can be retried."))
    raise typer.Exit(with_connection(lambda c: steering.retry_all(c, wanted, dry_run=dry_run, yes=yes)))


def _wanted(
    status: RunStatus | None,
    agent: str | None,
    principal: str | None,
    older_than: str | None,
    error_code: str | None = None,
) -> RunFilter:
    for option, text in (("--agent", agent), ("--principal", principal), ("--error-code", error_code)):
        if text is not None and not text.isprintable():
            fail(Invalid(f"{option}: printable characters only."))
    seconds = None if older_than is None else seconds_of(older_than, "--older-than")
    return RunFilter(status, agent, principal, seconds, error_code)


def _check_one_way(ids: list[str] | None, wanted: RunFilter) -> None:
    if ids and not wanted.is_empty:
        fail(Invalid("Give ids, or options that say which runs; not both."))
    if not ids and wanted.is_empty:
        fail(Invalid("Which runs? Give ids, or options such as --status, --agent, --principal, --older-than."))


def _cancel_through_api(ids: list[str], url: str) -> None:
    if not ids:
        fail(Invalid("--url: give ids. Options that mean many runs work on the database."))
    try:
        client = _ask().client(url)
        for id in ids:
            echo_line(f"{id} is {client.cancel(id)['status']}")
    except OutlastError as error:
        fail(error)


def _only_api() -> str | None:
    """The API that the environment names where it names no database."""
    return None if operators_settings().names_database else os.environ.get("OUTLAST_URL")


def _ask() -> Any:
    return importlib.import_module("outlast.infra.cli.ask")  # with an HTTP client, which reading does not need


def _parse(id: str) -> UUID:
    run_id = parse_response_id(id)
    if run_id is None:
        fail(RunNotFound(f"{id} is not the id of a run: resp_ and 32 hexadecimal digits."))
    return run_id
