"""What both commands of the bench take, and how they tell of their progress."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable


def chosen(command: str, names: Iterable[str]) -> list[str]:
    """The names that ``--only a,d`` leaves, all without it; another name ends the command."""
    known = list(names)
    parser = argparse.ArgumentParser(prog=command)
    parser.add_argument("--only", metavar="NAME,NAME", default=",".join(known), help=f"some of {', '.join(known)}")
    asked = parser.parse_args().only.split(",")
    if unknown := set(asked) - set(known):
        parser.error(f"there is no {', '.join(sorted(unknown))}; there are {', '.join(known)}")
    return asked


def say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
