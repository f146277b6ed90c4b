"""Unix sockets in folders that only one user can enter: such a folder is the servers' only password."""

from __future__ import annotations

import hashlib
import os
import re
import socket
import stat
import struct
import sys
import tempfile
from pathlib import Path

from .errors import EmbeddedError

LONGEST_PATH = 103  # bytes; macOS takes 104 with the closing zero, Linux 108
# Postgres splits its folders at commas, and URLs must carry the path through several parsers.
_PLAIN = re.compile(r"/[A-Za-z0-9/._+-]+")
_LOCAL_PEERPID = (0, 0x002)  # SOL_LOCAL and LOCAL_PEERPID of macOS, which Python does not name


def fits(path: Path) -> bool:
    """Whether a socket can have this path."""
    return _PLAIN.fullmatch(str(path)) is not None and len(str(path)) <= LONGEST_PATH


def socket_folder(home: Path, name: str, *, uid: int, gid: int) -> Path:
    """A private folder for the socket `name`: in `home` when a socket can be there, else in the temp folder.

    Raises EmbeddedError when the place in the temp folder is taken by something that is not ours.
    """
    inside = home / "socket"
    if fits(inside / name):
        _make(inside, uid, gid)
        if what_is_wrong(inside, uid) is None:  # a mount of Windows or macOS keeps no modes
            return inside
    outside = _outside(home, name, uid)
    _make(outside, uid, gid)
    if wrong := what_is_wrong(outside, uid):
        raise EmbeddedError(
            f"{outside} cannot hold the server's socket: it {wrong}. Remove it, or set TMPDIR to a folder of your own."
        )
    return outside


def what_is_wrong(folder: Path, uid: int) -> str | None:
    """Why a folder is not private to the user, if so. A symlink is not followed."""
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode):
        return "is not a folder"
    if found.st_uid != uid:
        return f"belongs to user {found.st_uid}, not to user {uid}"
    if stat.S_IMODE(found.st_mode) & 0o077:
        return f"is open to other users (mode {stat.S_IMODE(found.st_mode):o})"
    return None


def listener_pid(path: Path) -> int | None:
    """The process that listens on a socket; None if none does, 0 if it is in another container."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
        client.settimeout(1)
        try:
            client.connect(str(path))
        except OSError:
            return None
        return _peer_pid(client)


def _peer_pid(client: socket.socket) -> int:
    if sys.platform == "darwin":
        return struct.unpack("i", client.getsockopt(*_LOCAL_PEERPID, 4))[0]
    return struct.unpack("3i", client.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))[0]


def _make(folder: Path, uid: int, gid: int) -> None:
    try:
        folder.mkdir(mode=0o700)
    except FileExistsError:
        return
    if uid != os.geteuid():
        os.chown(folder, uid, gid)


def _outside(home: Path, name: str, uid: int) -> Path:
    digest = hashlib.sha256(os.fsencode(home.resolve())).hexdigest()[:16]
    for parent in (tempfile.gettempdir(), "/tmp"):
        folder = Path(parent) / f"outlast-{uid}-{digest}"
        if fits(folder / name):
            return folder
    raise EmbeddedError(f"No folder for a socket: {folder} is too long a path. Set TMPDIR to a shorter one.")
