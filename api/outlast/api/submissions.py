"""From a request to a run in the queue."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime
from hashlib import sha256
from typing import Any, TypeVar
from uuid import UUID

from outlast.agent import Request, Secret
from outlast.shared import mlflow_traces, tracing
from outlast.shared.domain.errors import IdempotencyKeyReused, Invalid, NotFound, OutlastError
from outlast.shared.domain.events import CREATED, QUEUED, Chunk
from outlast.shared.domain.ids import new_uuid, parse_response_id
from outlast.shared.domain.responses import queued_response, response_object
from outlast.shared.domain.runs import MultitaskStrategy, Run, RunStatus, Submission, ToolItems
from outlast.shared.domain.titles import title_of
from outlast.shared.settings import Settings
from outlast.shared.store import runs, submissions, threads
from outlast.shared.wire import response_line, to_json

from .admission import through
from .graph_checks import check_for_graph
from .references import resolved
from .schemas import CreateResponse
from .services import Services

IDEMPOTENCY_KEY = "Idempotency-Key"
_MAX_KEY_CHARACTERS = 255


class ModelNotFound(NotFound):
    """The model names no agent."""

    default_code = "model_not_found"


class _KeyTaken(OutlastError):
    """A request at the same time has stored a run with this idempotency key."""


class PreviousNotFound(Invalid):
    """There is no previous response of this id."""

    def __init__(self, given: str | None) -> None:
        super().__init__(
            f"Previous response with id '{(given or '')[:100]}' not found.",
            param="previous_response_id",
            code="previous_response_not_found",
        )


@dataclass(frozen=True, slots=True)
class Asked:
    """A request for a run: its body as it came and as it was checked, who sends it, and when."""

    body: dict[str, Any]
    request: CreateResponse
    principal: str
    at: datetime
    databricks: bool
    traceparent: str | None = None
    """The trace that the caller is in."""
    user_token: Secret | None = None
    """With which the agent may act for the caller. It is stored nowhere."""
    trace_id: bool = False
    """The response is to name its trace in MLflow."""


@dataclass(frozen=True, slots=True)
class Submitted:
    """A run that is stored, as it is now, and its response object as JSON."""

    run: Run
    response: str
    replayed: bool = False
    """It was stored by an earlier request with the same idempotency key."""


def checked_key(key: str | None) -> str | None:
    """The value of the header, if it may be a key. Raises Invalid."""
    if key is not None and not (1 <= len(key) <= _MAX_KEY_CHARACTERS and key.isascii() and key.isprintable()):
        raise Invalid(
            f"The {IDEMPOTENCY_KEY} header takes 1 to {_MAX_KEY_CHARACTERS} printable ASCII characters.",
            param=IDEMPOTENCY_KEY,
        )
    return key


async def submit(services: Services, asked: Asked, idempotency_key: str | None = None) -> Submitted:
    """Commit a run and ring a worker; with the idempotency key of an earlier run, find that one.

    Raises QueueFull before anything is stored, and IdempotencyKeyReused when the key came with another body.
    """
    if idempotency_key is None:
        return await _traced(services, await _submission(services, asked), asked)
    digest = sha256(_encoded(asked.body, in_order=True).encode()).digest()
    while True:
        earlier = await _earlier(services, asked.principal, idempotency_key, digest)
        if earlier is not None:
            return earlier
        submission = await _submission(services, asked)
        with suppress(_KeyTaken):
            keyed = replace(submission, idempotency_key=idempotency_key, request_digest=digest)
            return await _traced(services, keyed, asked)


async def _earlier(services: Services, principal: str, idempotency_key: str, digest: bytes) -> Submitted | None:
    """The run that was submitted with this key, as it is now. Raises IdempotencyKeyReused."""
    known = await services.database.run(lambda c: submissions.known(c, principal, idempotency_key))
    if known is None:
        return None
    run_id, theirs = known
    if theirs != digest:
        raise IdempotencyKeyReused(
            f"The {IDEMPOTENCY_KEY} header has been sent with another request body. Use a new key for a new request."
        )
    run = await services.database.run(lambda c: runs.read(c, run_id, principal))
    if run is None:  # deleted just now
        return None
    return Submitted(run, run.response or to_json(response_object(run)), replayed=True)


async def _traced(services: Services, submission: Submission, asked: Asked) -> Submitted:
    with tracing.submission(submission, asked.traceparent) as traceparent:
        traced = replace(submission, traceparent=traceparent) if traceparent else submission
        return await _store(services, traced, asked.user_token)


async def _store(services: Services, submission: Submission, user_token: Secret | None) -> Submitted:
    response = _response(submission)
    entry = submissions.Entry(submission, _encoded(submission.request), _first_events(response, submission.created_at))
    services.rest.stir()  # before the run is there: should this replica die now, the others are looking
    with through(await services.admission.check(submission)):
        # Before the run is there: a worker may take it at once.
        async with services.user_tokens.sent(submission.run_id, user_token):
            if await services.group_commit.store(entry) != submission.run_id:
                raise _KeyTaken
    services.metrics.runs_accepted.inc()
    services.doorbell.ring(submission.queue, submission.run_id, submission.traceparent)
    if submission.multitask_strategy is MultitaskStrategy.INTERRUPT:
        others = await services.database.run(lambda c: threads.interrupted_for(c, submission.run_id))
        services.hints.cancelled(others)
    return Submitted(_queued(submission, entry.log), response)


async def _submission(services: Services, asked: Asked) -> Submission:
    request, principal = asked.request, asked.principal
    previous = _previous(request)
    thread = request.thread
    agent = _agent(request.model, services.settings)
    await check_for_graph(services.database, asked.body, agent, services.settings.taken(agent))
    if previous is not None:
        theirs = await services.database.run(lambda c: runs.thread_of(c, previous, principal))
        if theirs is None:
            raise PreviousNotFound(request.previous_response_id)
        thread = thread or theirs
    run_id, thread_id, settings = new_uuid(), new_uuid(), services.settings
    body = await _resolved(services, asked, previous)
    return Submission(
        run_id=run_id,
        thread_id=thread_id,
        thread=thread or f"conv_{thread_id.hex}",
        principal=principal,
        agent=agent,
        created_at=asked.at,
        timeout_seconds=_within("timeout_seconds", request.timeout_seconds, settings.timeout_of(agent)),
        background=bool(request.background),
        store=request.store is not False,
        tool_items=_tool_items(request, asked.databricks),
        previous_run_id=previous,
        request=_naming_trace(body, run_id) if asked.trace_id else body,
        title=title_of(_text(asked.body["input"])),
        queue=settings.queue_of(agent),
        expire_after_seconds=_within(
            "expire_queued_after_seconds", request.expire_queued_after_seconds, settings.expire_queued_after_seconds
        ),
        multitask_strategy=request.multitask_strategy or settings.multitask_strategy_of(agent),
    )


T = TypeVar("T", int, int | None)


def _within(param: str, asked: int | None, most: T) -> int | T:
    """What was asked for, or the server's own number, which is the most that may be. Raises Invalid."""
    if asked is None:
        return most
    if most is not None and asked > most:
        raise Invalid(f"{param} may be at most {most} here, not {asked}.", param=param)
    return asked


async def _resolved(services: Services, asked: Asked, previous: UUID | None) -> dict[str, Any]:
    """The request with whole items where it names them."""
    items = asked.request.input
    if isinstance(items, str):
        return asked.body
    limit = services.settings.max_request_bytes
    given = await resolved(
        services.database, asked.body["input"], items, asked.principal, previous=previous, max_bytes=limit
    )
    return {**asked.body, "input": given}


def _naming_trace(body: dict[str, Any], run_id: UUID) -> dict[str, Any]:
    return {**body, "metadata": {**(body.get("metadata") or {}), "trace_id": mlflow_traces.trace_id(run_id)}}


def _text(given: str | list[dict[str, Any]]) -> str:
    return given if isinstance(given, str) else Request(given).text


def first_events(submission: Submission) -> Chunk:
    """The log begins with the run: a client that streams has its id before any worker has seen it."""
    return _first_events(_response(submission), submission.created_at)


def _first_events(response: str, at: datetime) -> Chunk:
    lines = [response_line(kind, n, response, at.timestamp()) for n, kind in enumerate((CREATED, QUEUED))]
    return Chunk(0, len(lines) - 1, "\n".join(lines))


def _response(submission: Submission) -> str:
    """The response object, as deep as it is within an event: what could not be one later is refused now."""
    return _encoded({"response": queued_response(submission)})[len('{"response":') : -1]


def _encoded(value: Mapping[str, Any], *, in_order: bool = False) -> str:
    try:
        return to_json(value, in_order=in_order)  # what can be read may be too deep to be written
    except TypeError as error:
        raise Invalid(f"The request cannot be kept as JSON: {error}.") from None


def _previous(request: CreateResponse) -> UUID | None:
    if request.previous_response_id is None:
        return None
    run_id = parse_response_id(request.previous_response_id)
    if run_id is None:
        raise PreviousNotFound(request.previous_response_id)
    return run_id


def _agent(model: str | None, settings: Settings) -> str:
    """The agent that ``model`` names; the default one for any other name, since clients must send something."""
    default = settings.default_agent
    assert default is not None, "an API without agents does not start"
    if model is None or model in settings.agents:
        return model or default
    if settings.strict_models:
        names = ", ".join(settings.agents)
        raise ModelNotFound(f"The model '{model[:100]}' does not exist. There is: {names}.", param="model")
    return default


def _tool_items(request: CreateResponse, databricks: bool) -> ToolItems:
    """What was asked for; Databricks' clients read pairs of function calls, all others take those for their own."""
    if request.tool_items is not None:
        return request.tool_items
    theirs = databricks or request.context is not None or request.custom_inputs is not None
    return ToolItems.FUNCTION_CALL if theirs else ToolItems.MCP_CALL


def _queued(submission: Submission, log: Chunk) -> Run:
    return Run(
        run_id=submission.run_id,
        thread_id=submission.thread_id,
        thread=submission.thread,
        principal=submission.principal,
        agent=submission.agent,
        status=RunStatus.QUEUED,
        attempt=0,
        created_at=submission.created_at,
        deadline_at=None,
        background=submission.background,
        store=submission.store,
        tool_items=submission.tool_items,
        request=submission.request,
        last_seq=log.last_seq,
        traceparent=submission.traceparent,
    )
