"""The commands. Each is thin: it reads settings, calls what does the work, and says what went wrong in one sentence."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Generator
from contextlib import contextmanager
from typing import Annotated, Any

import typer

from outlast.shared.domain.errors import OutlastError
from outlast.shared.domain.runs import RunStatus

from . import keys, lakebase, parts, runs, workers
from .terminal import echo

app = typer.Typer(
    name="outlast",
    help="The durable agent server: runs outlast the connection, the worker, the broker and the deploy.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    add_completion=False,
)
app.add_typer(keys.app, name="keys", help="API keys: create, list, revoke.")
app.add_typer(runs.app, name="runs", help="Runs: list, show, follow, cancel, retry.")
app.add_typer(lakebase.app, name="lakebase", help="Lakebase: grant.")
app.add_typer(workers.app, name="workers", help="Workers: who is there; drain.")

Port = Annotated[int, typer.Option(envvar="PORT", min=1, max=65535, help="Where to listen.")]
Url = Annotated[str | None, typer.Option(envvar="OUTLAST_URL", help="The API; the running `outlast dev` otherwise.")]


def needed(name: str) -> Any:
    """A module of this package that only some commands need: a worker does not wait for the client's imports."""
    return importlib.import_module(f"outlast.infra.cli.{name}")


@contextmanager
def explained() -> Generator[None]:
    """What is wrong with the set-up is said in one line, not shown as a traceback."""
    try:
        yield
    except OutlastError as error:
        echo(f"outlast: {error.message}", err=True)
        raise typer.Exit(1) from None


@app.command()
def dev(
    port: Port = 8000,
    hello: Annotated[
        bool | None,
        typer.Option("--hello/--no-hello", help="Ask a question at the start; the example only, otherwise."),
    ] = None,
) -> None:
    """Everything on this machine: Postgres, Valkey, the schema, an API and a worker."""
    with explained():
        raise typer.Exit(needed("dev").run(port=port, hello=hello))


@app.command()
def demo() -> None:
    """See a run outlive its worker and its connection, in a throw-away folder; exits 0 if no byte was lost."""
    with explained():
        raise typer.Exit(needed("demo").run())


@app.command()
def serve(
    port: Annotated[
        int,
        typer.Option(
            envvar=["DATABRICKS_APP_PORT", "PORT"], min=1, max=65535, help="Where to listen, on all addresses."
        ),
    ] = 8000,
) -> None:
    """An API and a worker in one container. Needs a Postgres and OUTLAST_AGENTS; brings a Valkey without REDIS_URL."""
    with explained():
        raise typer.Exit(needed("serve").run(port=port))


@app.command()
def api(
    host: Annotated[
        str, typer.Option(help="The address to bind; others than loopback need OUTLAST_AUTH.")
    ] = "127.0.0.1",
    port: Port = 8000,
) -> None:
    """One API replica. Needs DATABASE_URL, REDIS_URL and OUTLAST_AGENTS (the names only)."""
    with explained():
        parts.run_api(host, port)


@app.command()
def worker(
    children: Annotated[
        int | None, typer.Option(min=1, max=256, help="Processes that run agents; one for each core otherwise.")
    ] = None,
    concurrency: Annotated[int | None, typer.Option(min=1, help="Runs at once in each child; 100 otherwise.")] = None,
    health_port: Annotated[
        int | None, typer.Option(min=1, max=65535, help="Answer GET /health and GET /ready here, on all addresses.")
    ] = None,
) -> None:
    """One worker: a parent and its children. Needs DATABASE_URL, REDIS_URL and OUTLAST_AGENTS."""
    with explained():
        raise typer.Exit(parts.run_worker(children=children, concurrency=concurrency, health_port=health_port))


@app.command()
def migrate() -> None:
    """Bring the database's schema to this release. Safe to repeat and to run twice at once."""
    with explained():
        parts.run_migrate()


@app.command()
def agents(
    as_json: Annotated[bool, typer.Option("--json", help="What is wrong with each, by name; null: nothing.")] = False,
) -> None:
    """The configured agents, and whether they can be loaded."""
    with explained():
        raise typer.Exit(parts.list_agents(as_json=as_json))


@app.command()
def ask(
    question: Annotated[str, typer.Argument(help="What to ask; - reads it from the standard input.")],
    model: Annotated[str | None, typer.Option(help="The agent to ask.")] = None,
    conversation: Annotated[str | None, typer.Option(help="The conversation to go on with.")] = None,
    url: Url = None,
) -> None:
    """Ask an agent: the answer on the standard output, everything else beside it. Ctrl-C leaves the run going."""
    text = sys.stdin.read() if question == "-" else question
    with explained():
        raise typer.Exit(needed("ask").ask(text, model=model, conversation=conversation, url=url))


@app.command()
def queue(
    interval: Annotated[float, typer.Option(min=0.2, help="Seconds between two looks.")] = 2.0,
    once: Annotated[bool, typer.Option("--once", help="Look once; also when this is not a terminal.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Once, as JSON.")] = False,
) -> None:
    """What waits, what runs and who works, on one screen."""
    with explained():
        raise typer.Exit(needed("queue").show(interval=interval, once=once, as_json=as_json))


@app.command()
def prune(
    older_than: Annotated[
        str | None,
        typer.Option(metavar="TIME", help="Ended so long ago, as in 12h, 90d; OUTLAST_RETENTION_DAYS otherwise."),
    ] = None,
    status: Annotated[RunStatus | None, typer.Option(help="Only runs that ended so.")] = None,
    agent: Annotated[str | None, typer.Option(help="Only runs of this agent.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say how much it would be, and remove nothing.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> None:
    """Remove finished runs for good, with what only they used. Ctrl-C stops it between two batches of them."""
    with explained():
        code = needed("prune").run(older_than=older_than, status=status, agent=agent, dry_run=dry_run, sure=yes)
        raise typer.Exit(code)


@app.command()
def doctor(
    as_json: Annotated[bool, typer.Option("--json", help="As JSON.")] = False,
    strict: Annotated[bool, typer.Option("--strict", help="Exit 1 for warnings too.")] = False,
    with_agents: Annotated[bool, typer.Option("--agents/--no-agents", help="Load the agents as well.")] = True,
) -> None:
    """What is wrong with settings, agents, database, broker, workers and machine, and what mends it. Exits 1 then."""
    raise typer.Exit(needed("doctor").examine(as_json=as_json, strict=strict, with_agents=with_agents))
