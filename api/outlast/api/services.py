"""What a replica holds while it runs, and how a request reaches it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Request

from outlast.shared.connections import Database
from outlast.shared.doorbell import Doorbell
from outlast.shared.hints import Hints
from outlast.shared.rest import Rest
from outlast.shared.settings import Settings
from outlast.shared.user_tokens import UserTokens

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
    hints: Hints
    rest: Rest
    user_tokens: UserTokens
    keyring: Keyring
    metrics: Metrics
    overviews: Overviews
    examinations: Examinations


async def services(request: Request) -> Services:  # a plain function would be called in a thread, for each request
    return request.app.state.services


Replica = Annotated[Services, Depends(services)]
