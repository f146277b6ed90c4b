"""Who a server runs as. Postgres refuses to be root, so root enters another identity; none is created."""

from __future__ import annotations

import os
import pwd
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from .errors import EmbeddedError

UNPRIVILEGED = ("postgres", "nobody")
AWAY = Path("/var/lib/outlast")  # for data of a user who cannot reach the project's own folder
# In this namespace the server sees itself as user 1000, while its files stay root's: nothing is chowned.
_NAMESPACE = ("unshare", "--user", "--map-user=1000", "--map-group=1000", "--")
_AWAY_NAME = re.compile(r"postgres-\w+")


@dataclass(frozen=True)
class Account:
    uid: int  # the owner of the server's files, seen from this process
    gid: int
    prefix: tuple[str, ...] = ()  # the command which enters this identity

    @property
    def is_other_user(self) -> bool:
        return self.uid != os.geteuid()

    def popen(self, command: Sequence[str], *, cwd: Path, output: IO[bytes], keep_open: int) -> subprocess.Popen[bytes]:
        """Start a command out of reach of the terminal's Ctrl-C; of our files it keeps only `keep_open`."""
        return subprocess.Popen(
            [*self.prefix, *command],
            cwd=cwd,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            pass_fds=(keep_open,),
            start_new_session=True,
            user=self.uid if self.is_other_user else None,
            group=self.gid if self.is_other_user else None,
            extra_groups=[] if self.is_other_user else None,
        )

    def reaches(self, path: Path) -> bool:
        """Whether it may enter this folder, or run this program."""
        if not self.prefix and not self.is_other_user:
            return os.access(path, os.X_OK)
        with tempfile.TemporaryFile() as output:
            question = ["test", "-x", str(path)]
            return self.popen(question, cwd=Path("/"), output=output, keep_open=output.fileno()).wait() == 0

    def take(self, tree: Path) -> None:
        """Become the owner of a tree. Raises EmbeddedError if it is another user's and we are not root."""
        owner = tree.lstat().st_uid
        if owner == self.uid:
            return
        if os.geteuid() != 0:
            raise EmbeddedError(
                f"{tree} belongs to user {owner}: run as that user, or move it away, or hand it over "
                f"(sudo chown -R {self.uid} '{tree.parent}')."
            )
        for folder, folders, files in os.walk(tree, topdown=False):
            for name in (*folders, *files):
                os.lchown(Path(folder, name), self.uid, self.gid)
        os.lchown(tree, self.uid, self.gid)  # last, so that what is cut short is done again


def own_account() -> Account:
    return Account(os.geteuid(), os.getegid())


def account_for_postgres() -> Account:
    """Ourselves, unless we are root. Raises EmbeddedError when root finds no other identity."""
    if os.geteuid() != 0:
        return own_account()
    return namespace_account() or unprivileged_account()


def namespace_account() -> Account | None:
    """Ourselves under another number in a user namespace; None where the system has none or forbids it."""
    if sys.platform != "linux" or shutil.which(_NAMESPACE[0]) is None:
        return None
    account = Account(os.geteuid(), os.getegid(), _NAMESPACE)
    return account if account.reaches(Path("/")) else None


def unprivileged_account() -> Account:
    """An existing user without rights. Raises EmbeddedError when there is none."""
    for name in UNPRIVILEGED:
        try:
            user = pwd.getpwnam(name)
        except KeyError:
            continue
        return Account(user.pw_uid, user.pw_gid)
    raise EmbeddedError(
        "Postgres does not run as root, and there is no user postgres or nobody to run it as: "
        "start outlast as a plain user, or set DATABASE_URL."
    )


def away_folder(folder: Path, account: Account, *, away: Path = AWAY) -> Path:
    """Where the account can have the data of `folder`: the same place each time, named in `folder`/away."""
    if not away.is_dir():
        away.mkdir(parents=True)
        away.chmod(0o755)  # whatever our umask is
    record = folder / "away"
    name = record.read_text() if record.exists() else ""
    if _AWAY_NAME.fullmatch(name) is None or not (away / name).is_dir():
        name = Path(tempfile.mkdtemp(prefix="postgres-", dir=away)).name
        record.write_text(name)
    account.take(away / name)
    if not account.reaches(away / name):
        raise EmbeddedError(
            f"User {account.uid} cannot enter {away}: start outlast as a plain user, or set DATABASE_URL."
        )
    return away / name
