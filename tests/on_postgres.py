"""``make test-postgres``: the tests of what Postgres does for us, on the server that DATABASE_URL names.

Without DATABASE_URL, on a cluster of the newest Postgres that Debian's packages have installed: it has their default
settings, is made for this and ends with it. Exits 3 when there is none, else as pytest does. ``--only claims,takeover``
runs some of the files; other arguments are pytest's.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from pathlib import Path

from outlast.infra.embedded import EmbeddedError, Postgres
from outlast.infra.embedded.binaries import postgres_in

ROOT = Path(__file__).parents[1]
INSTALLED = Path("/usr/lib/postgresql")
FILES = ("compiling", "claims", "takeover", "five_modes", "runs_store", "event_log", "submissions")
_SETTINGS = {"max_connections": "100"}  # as servers have it
_NO_POSTGRES = 3


@contextmanager
def a_cluster(folder: Path) -> Generator[str]:
    """Its address. Raises EmbeddedError."""
    with tempfile.TemporaryDirectory(prefix="outlast-postgres-") as made:
        postgres = Postgres(Path(made), settings=_SETTINGS, binaries=postgres_in(folder))
        postgres.start()
        print(f"Postgres {postgres.version} of {folder}, with its default settings", flush=True)
        try:
            yield postgres.url
        finally:
            postgres.stop()


def newest(installed: Path = INSTALLED) -> Path | None:
    """The programs of the newest one; none when nothing is installed."""
    found = [folder for folder in installed.glob("*/bin") if folder.parent.name.isdecimal()]
    found = [folder for folder in found if (folder / "initdb").exists() and (folder / "postgres").exists()]
    return max(found, key=lambda folder: int(folder.parent.name), default=None)


def tested(names: Sequence[str], options: Sequence[str]) -> int:
    """The exit code of pytest."""
    files = [f"tests/integration/test_{name}.py" for name in names]
    return subprocess.run([sys.executable, "-m", "pytest", "-q", *files, *options], cwd=ROOT, check=False).returncode


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="tests.on_postgres", allow_abbrev=False)
    parser.add_argument("--only", type=lambda text: text.split(","), default=FILES)
    given, options = parser.parse_known_args(arguments)
    if os.environ.get("DATABASE_URL"):
        return tested(given.only, options)
    folder = newest()
    if folder is None:
        print(f"DATABASE_URL is not set, and no Postgres is in {INSTALLED}", file=sys.stderr)
        return _NO_POSTGRES
    try:
        with a_cluster(folder) as url:
            os.environ["DATABASE_URL"] = url
            return tested(given.only, options)
    except EmbeddedError as error:
        print(error, file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
