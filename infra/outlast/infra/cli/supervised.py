"""What `outlast dev` and the parts it starts know of each other."""

from __future__ import annotations

import json
import os
import signal
import threading
from collections.abc import Generator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from outlast.shared.settings import Settings, SettingsError

PARENT_FD = "OUTLAST_DEV_PARENT_FD"
READY_FD = "OUTLAST_DEV_READY_FD"
READY = b"1"
"""The word of a part that is ready; any other says why the part cannot start."""
LONGEST_WORD = 4096
"""In bytes: a pipe takes so many at once."""
API_KEY = "OUTLAST_API_KEY"
"""The variable with the key that commands send to the API."""
_EXIT_AFTER_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class RunningDev:
    """Where the parts of a running `outlast dev` are; kept in its data folder for other commands."""

    pid: int
    url: str
    database_url: str | None
    redis_url: str | None


def _note(config: Settings) -> Path:
    return Path(config.data_dir) / "dev.json"


def note_running(config: Settings, running: RunningDev) -> None:
    with open(_note(config), "w", encoding="utf-8", opener=_privately) as file:
        file.write(json.dumps(asdict(running)))


def _privately(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def forget_running(config: Settings) -> None:
    _note(config).unlink(missing_ok=True)


def running_dev(config: Settings) -> RunningDev | None:
    """The running `outlast dev` of this folder, if there is one."""
    try:
        running = RunningDev(**json.loads(_note(config).read_text()))
        os.kill(running.pid, 0)
    except (OSError, ValueError, TypeError):
        return None
    return running


def follow_parent() -> None:
    """End with the process that started this part, however it ended: the pipe it holds closes with it."""
    fd = os.environ.pop(PARENT_FD, None)
    if fd is not None:
        threading.Thread(target=_end_with, args=(int(fd),), name="parent", daemon=True).start()


def _end_with(fd: int) -> None:
    os.read(fd, 1)
    os.kill(os.getpid(), signal.SIGTERM)
    threading.Event().wait(_EXIT_AFTER_SECONDS)
    os._exit(1)


def tell_ready() -> None:
    _tell(READY)


def tell_refusal(reason: str) -> None:
    """Tell the supervisor, if there is one, that this part cannot start, and that no other try could."""
    _tell(reason.encode(errors="replace"))


def _tell(word: bytes) -> None:
    fd = os.environ.pop(READY_FD, None)
    if fd is not None:
        with suppress(OSError):  # the supervisor has ended, and ends this part
            os.write(int(fd), word[:LONGEST_WORD])
        os.close(int(fd))


@contextmanager
def telling_refusals() -> Generator[None]:
    try:
        yield
    except SettingsError as error:
        tell_refusal(error.message)
        raise
