"""What a replica holds while it runs, and how a request reaches it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Request

from outlast.shared.cancel_hints import CancelHints
from outlast.shared.connections import Database
from outlast.shared.doorbell import Doorbell
from outlast.shared.settings import Settings

from .admission import Admission
from .examinations import Examinations
from .group_commit import GroupCommit
from .keyring import Keyring
from .metrics.instruments import Metrics
from .overviews import Overviews
from .tail import Tail


@dataclass(frozen=True, slots=True)
class Services:
    settings: Settings
    database: Database
    tail: Tail
    admission: Admission
    group_commit: GroupCommit
    doorbell: Doorbell
    cancel_hints: CancelHints
    keyring: Keyring
    metrics: Metrics
    overviews: Overviews
    examinations: Examinations


async def services(request: Request) -> Services:  # a plain function would be called in a thread, for each request
    return request.app.state.services


Replica = Annotated[Services, Depends(services)]
