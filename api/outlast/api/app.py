"""The API application: any number of replicas of it, none with state of its own."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Coroutine
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from importlib.metadata import version
from typing import Any

import structlog
from fastapi import Depends, FastAPI

from outlast.shared.background import Background
from outlast.shared.connections import Database
from outlast.shared.doorbell import Doorbell
from outlast.shared.hints import Hints
from outlast.shared.rest import Rest
from outlast.shared.settings import Settings, SettingsError
from outlast.shared.store import schema
from outlast.shared.sweep import Sweep
from outlast.shared.user_tokens import UserTokens

from . import document, errors, host_names
from .admission import Admission
from .answer_headers import AnswerHeaders
from .authentication import identify, only_admins
from .examinations import Examinations
from .group_commit import GroupCommit
from .host_names import HostNames
from .interruptions import Interruptions
from .keyring import Keyring
from .metrics.instruments import Metrics
from .metrics.replica import ReplicaState
from .overviews import Overviews
from .routes import admin, health, lists, metrics, models, page, responses
from .services import Services
from .tail import Tail

log = structlog.get_logger()

Lifespan = Callable[[FastAPI], AbstractAsyncContextManager[None]]


def create_app(settings: Settings, *, on_loopback: bool = True) -> FastAPI:
    """The ASGI application, for a server that only this machine reaches, or one that others do.

    Raises SettingsError when it could not serve anything.
    """
    if not settings.agents:
        raise SettingsError("OUTLAST_AGENTS is not set: name=module:attribute, the first is the default")
    app = FastAPI(
        title="Outlast",
        version=version("outlast"),
        lifespan=_serving(settings),
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
    )
    # The routes that take most requests come first, and plain: what FastAPI does for others costs as much as the rest.
    # They ask for the key themselves.
    for path, endpoint in (("/responses", responses.create), ("/invocations", responses.invoke)):
        app.add_route(path, endpoint, methods=["POST"], include_in_schema=False)
        app.add_route(f"/v1{path}", endpoint, methods=["POST"], include_in_schema=False)
    with_key = [Depends(identify)]  # for every route of these, whether or not it asks who is calling
    for prefix in ("", "/v1"):
        for module in (responses, lists, models):
            app.include_router(module.router, prefix=prefix, include_in_schema=prefix == "/v1", dependencies=with_key)
    app.include_router(admin.router, dependencies=[Depends(only_admins)])
    app.include_router(metrics.router)
    app.include_router(health.router)
    page.install(app)
    checks_host = host_names.are_checked(settings, on_loopback=on_loopback)
    if checks_host:
        app.add_middleware(HostNames, allowed=settings.allowed_hosts)
    app.add_middleware(Interruptions)
    app.add_middleware(AnswerHeaders)
    errors.install(app)
    document.install(app, settings, checks_host=checks_host)
    return app


def _serving(settings: Settings) -> Lifespan:
    """What a replica holds while it runs. Raises SettingsError now, not when it starts."""
    redis_url = settings.required_redis_url()
    Database.of(settings, application="outlast api")
    if settings.auth == "databricks" and settings.token_key is None:
        log.warning("token.off", reason="OUTLAST_TOKEN_KEY is not set: agents cannot act as their users")

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncGenerator[None]:
        database = Database.of(settings, application="outlast api")
        doorbell = Doorbell(redis_url, settings.db_schema)
        hints = Hints(redis_url, settings.db_schema)
        async with database.pooled(max_connections=settings.api_connections):
            await database.run(schema.check, patience_seconds=30)
            doorbell.start()
            rest = Rest(settings, hints)
            sweep, measured = Sweep(database, settings, doorbell, rest), Metrics()
            try:
                async with (
                    GroupCommit(database, measured).running() as commit,
                    Tail(database, settings, rest, measured).running() as tail,
                    Keyring(database).running() as keyring,
                    _running(sweep.run_forever()),
                    _running(hints.listen(awake=rest.stirred)),
                    UserTokens(settings).open() as user_tokens,
                ):
                    measured.registry.register(ReplicaState(database, tail, doorbell, sweep))
                    app.state.services = Services(
                        settings=settings,
                        database=database,
                        tail=tail,
                        admission=Admission(database, settings),
                        group_commit=commit,
                        doorbell=doorbell,
                        hints=hints,
                        rest=rest,
                        user_tokens=user_tokens,
                        keyring=keyring,
                        metrics=measured,
                        overviews=Overviews(database, settings, rest),
                        examinations=Examinations(settings),
                    )
                    yield
            finally:
                await hints.close()
                doorbell.stop()

    return lifespan


@asynccontextmanager
async def _running(forever: Coroutine[Any, Any, None]) -> AsyncGenerator[None]:
    background = Background()
    background.start(forever)
    try:
        yield
    finally:
        await background.cancel()
