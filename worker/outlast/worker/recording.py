"""What agents do, recorded in MLflow with all that is said, if somebody wants it (docs/tracing.md).

Everything here does nothing, and loads nothing, until `configure` has found that it is wanted.
"""

from __future__ import annotations

import asyncio
import importlib
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from importlib.util import find_spec
from typing import Any, Protocol

import structlog

from outlast.shared.domain.runs import Run, RunStatus
from outlast.shared.mlflow_traces import wanted
from outlast.shared.settings import Settings, SettingsError

log = structlog.get_logger()

MODULE = "outlast.worker.mlflow"


class Recording(Protocol):
    """One attempt."""

    def callbacks(self) -> Sequence[Any]:
        """LangChain's, of who records what a graph does."""
        ...

    def finished(self, status: RunStatus, output: Sequence[Mapping[str, Any]]) -> None:
        """The run has ended with this attempt; ``output`` is the response's."""
        ...

    def end(self) -> None:
        """The attempt is over."""
        ...


class Recorder(Protocol):
    def begin(self, run: Run) -> Recording | None:
        """None: it is not recorded. Never raises, never waits."""
        ...

    def wait(self, seconds: float) -> None:
        """Until it can record, but not for longer. Blocks."""
        ...

    def stop(self, seconds: float) -> bool:
        """Hand over what is left. False: that could not be done in so many seconds, and goes on in threads."""
        ...


_recorder: Recorder | None = None
_recording: ContextVar[Recording | None] = ContextVar("recording", default=None)


def installed(settings: Settings) -> bool:
    """Whether it is wanted and can be done."""
    return wanted(settings) and find_spec("mlflow") is not None


def configure(settings: Settings) -> None:
    """Have this process record, if it is to. Raises SettingsError when it was told to and cannot."""
    if installed(settings):
        use(importlib.import_module(MODULE).recorder())
    elif settings.mlflow:
        raise SettingsError("OUTLAST_MLFLOW needs MLflow: install outlast[mlflow]")
    elif wanted(settings):
        log.warning("recording.not_installed", reason="MLflow's variables are set; install outlast[mlflow]")


def use(recorder: Recorder | None) -> None:
    global _recorder
    _recorder = recorder


async def ready(seconds: float) -> None:
    """So that the first run is recorded too, if MLflow answers by then."""
    if _recorder is not None:
        await asyncio.to_thread(_recorder.wait, seconds)


def stop(seconds: float) -> bool:
    return _recorder is None or _recorder.stop(seconds)


@contextmanager
def attempt(run: Run) -> Generator[None]:
    """What is done in this context is recorded as an attempt at the run."""
    recording = None if _recorder is None else _recorder.begin(run)
    if recording is None:
        yield
        return
    token = _recording.set(recording)
    try:
        yield
    finally:
        _recording.reset(token)
        recording.end()


def callbacks() -> Sequence[Any]:
    recording = _recording.get()
    return recording.callbacks() if recording else ()


def finished(status: RunStatus, response: Mapping[str, Any]) -> None:
    """The run on whose behalf this is said has ended, with this response object."""
    if recording := _recording.get():
        recording.finished(status, response["output"])
