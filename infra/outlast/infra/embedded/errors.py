"""What can go wrong with a private server. Each message says what is wrong and what to do."""

from __future__ import annotations

from pathlib import Path


class EmbeddedError(Exception):
    """A private server cannot be found, started or reached."""


class AlreadyRunning(EmbeddedError):
    """A living process holds the lock of the data folder."""

    def __init__(self, folder: Path, pid: str) -> None:
        super().__init__(
            f"{folder} is in use by process {pid or '(number unknown)'}: "
            "end that process first, or start this one with another folder."
        )
        self.folder = folder
        self.pid = pid
