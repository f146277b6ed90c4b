"""Locks which live exactly as long as the processes that hold them."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path


class FileLock:
    """A flock on a file, with a note in it. The kernel frees it however its holder ends.

    It belongs to the open file: a child which is given `fd` holds it too, until the last of them is gone.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._fd: int | None = None

    @property
    def fd(self) -> int:
        assert self._fd is not None, "the lock is not held"
        return self._fd

    def try_acquire(self) -> bool:
        """True when this object holds the lock now, False while somebody else does. Raises OSError."""
        if self._fd is not None:
            return True
        fd = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(fd)
            return False
        self._fd = fd
        return True

    def write_note(self, note: str) -> None:
        """Leave a word for those who find the lock held."""
        os.ftruncate(self.fd, 0)
        os.pwrite(self.fd, note.encode(), 0)

    def read_note(self) -> str:
        return self.path.read_text()

    def release(self) -> None:
        # Closed, never unlocked: LOCK_UN would free it for the children that share it as well.
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None
