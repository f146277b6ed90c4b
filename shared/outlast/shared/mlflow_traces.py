"""What both sides know of a run's trace in MLflow (docs/tracing.md). Nothing of MLflow is loaded here."""

from __future__ import annotations

import os
from dataclasses import dataclass
from hashlib import sha256
from uuid import UUID

from .settings import Settings

_STANDARD = ("MLFLOW_TRACKING_URI", "MLFLOW_EXPERIMENT_ID", "MLFLOW_EXPERIMENT_NAME")


@dataclass(frozen=True, slots=True)
class TraceIds:
    """A run's trace and its root: the same for every attempt, in whatever process."""

    trace: int
    root: int

    @classmethod
    def of(cls, run_id: UUID) -> TraceIds:
        digest = sha256(run_id.bytes).digest()  # the run's own id is a time first, and MLflow samples by an id's bits
        return cls(int.from_bytes(digest[:16]), int.from_bytes(digest[16:24]))


def trace_id(run_id: UUID) -> str:
    """As MLflow names the run's trace."""
    return f"tr-{TraceIds.of(run_id).trace:032x}"


def wanted(settings: Settings) -> bool:
    """Whether runs are to be traced in MLflow, as far as settings and environment tell."""
    if settings.mlflow is not None:
        return settings.mlflow
    return any(os.environ.get(name) for name in _STANDARD)
