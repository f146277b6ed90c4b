"""``make bench-peers``: the same work by Outlast, procrastinate, DBOS and plain Celery, one after the other."""

from __future__ import annotations

import argparse
import asyncio

from bench import results
from bench.cases.peers import PEERS, PYTHON, measure
from bench.figures import Figure, table
from bench.run import say
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
    parser = argparse.ArgumentParser(prog="make bench-peers", description=__doc__)
    parser.add_argument("--only", metavar="outlast,dbos", default=",".join(PEERS), help="some of them")
    names = parser.parse_args().only.split(",")
    if unknown := set(names) - set(PEERS):
        parser.error(f"there is no {', '.join(sorted(unknown))}; there are {', '.join(PEERS)}")
    if not PYTHON.exists():
        parser.error(f"{PYTHON.relative_to(ROOT)} is missing: `make bench-peers` makes it")
    figures = asyncio.run(measure_all(names))
    for name, found in figures.items():
        print(f"{name}\n{table(found)}\n")
    print(f"written to {results.write(figures, whole=len(names) == len(PEERS), kind='peers-')}")


if __name__ == "__main__":
    main()
