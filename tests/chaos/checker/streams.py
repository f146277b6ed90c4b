"""What clients were sent: the log's own bytes, each number once over each connection, to the end."""

from __future__ import annotations

import json
from collections.abc import Iterator

from tests.chaos.checker.evidence import Evidence, Stored
from tests.chaos.clients import Connection, Watched


def check(watched: Watched, evidence: Evidence) -> Iterator[str]:
    """A sentence for each thing that is wrong."""
    if watched.run is None:  # its client never learned whether it was accepted
        return
    run = evidence.runs.get(watched.token)
    if watched.deleted:
        # A request with the same key that was on its way for long makes a new run: the key has gone with the old one.
        if run is not None and run.id == watched.run:
            yield f"{watched.run} was deleted and is there"
        return
    if run is None:
        yield f"{watched.run} was accepted and is not there"
        return
    if run.id != watched.run:
        yield f"the client was told of {watched.run}, and {run.id} is stored"
    lines = [line.encode() for line in run.lines]
    for connection in watched.connections:
        yield from _connection(connection, lines)
    if not watched.ended:
        yield "its client has not seen its end"
    elif watched.final is not None:
        yield from _final(watched, run)
    else:
        yield from _whole(watched, lines)


def _connection(connection: Connection, lines: list[bytes]) -> Iterator[str]:
    numbers = [number for number, _ in connection.frames]
    first = connection.starting_after + 1
    if numbers != list(range(first, first + len(numbers))):
        yield f"a stream after {connection.starting_after} brought {_brief(numbers)}"
    wrong = [n for n, data in connection.frames if n >= len(lines) or lines[n] != data]
    if wrong:
        yield f"{len(wrong)} frames are not what the log has under their numbers: {_brief(wrong)}"
    if connection.done and (numbers[-1:] or [connection.starting_after]) != [len(lines) - 1]:
        yield f"a stream said [DONE] at {numbers[-1:]} of {len(lines)} events"


def _whole(watched: Watched, lines: list[bytes]) -> Iterator[str]:
    seen = {number for connection in watched.connections for number, _ in connection.frames}
    if missing := set(range(len(lines))) - seen:
        yield f"the client was never sent {_brief(sorted(missing))}"


def _final(watched: Watched, run: Stored) -> Iterator[str]:
    shown, stored = watched.final or {}, run.response or {}
    for name in ("id", "status", "output"):
        if shown.get(name) != stored.get(name):
            yield f"GET shows another {name} than is stored: {json.dumps(shown.get(name))[:200]}"


def _brief(numbers: list[int]) -> str:
    return f"{numbers[:20]}{' …' if len(numbers) > 20 else ''}"
