"""``make bench-peers``: the same work by Outlast, procrastinate, DBOS and plain Celery, one after the other."""

from __future__ import annotations

import asyncio

from bench import results
from bench.arguments import chosen, say
from bench.cases.peers import PEERS, PYTHON, measure
from bench.figures import Figure, table
from bench.stack import ROOT, running_stack


async def measure_all(names: list[str]) -> dict[str, list[Figure]]:
    """A new Postgres and a new Valkey for each, so that none has another's data."""
    figures: dict[str, list[Figure]] = {}
    for name in names:
        async with running_stack() as stack:
            figures[name] = await measure(stack, PEERS[name])
        say(f"{name}\n{table(figures[name])}\n")
    return figures


def main() -> None:
    names = chosen("make bench-peers", PEERS)
    if not PYTHON.exists():
        raise SystemExit(f"{PYTHON.relative_to(ROOT)} is missing: `make bench-peers` makes it")
    figures = asyncio.run(measure_all(names))
    for name, found in figures.items():
        print(f"{name}\n{table(found)}\n")
    print(f"written to {results.write(figures, whole=len(names) == len(PEERS), kind='peers-')}")


if __name__ == "__main__":
    main()
