"""From a request to a run in the queue."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID

from outlast.shared.domain.errors import Invalid, NotFound
from outlast.shared.domain.events import CREATED, QUEUED, Chunk
from outlast.shared.domain.ids import new_uuid, parse_response_id
from outlast.shared.domain.responses import queued_response
from outlast.shared.domain.runs import Run, RunStatus, Submission, ToolItems
from outlast.shared.settings import Settings
from outlast.shared.store import runs, submissions
from outlast.shared.wire import response_line, to_json

from .schemas import CreateResponse
from .services import Services


class ModelNotFound(NotFound):
    """The model names no agent."""

    default_code = "model_not_found"


class PreviousNotFound(Invalid):
    """There is no previous response of this id."""

    def __init__(self, given: str | None) -> None:
        super().__init__(
            f"Previous response with id '{(given or '')[:100]}' not found.",
            param="previous_response_id",
            code="previous_response_not_found",
        )


async def submit(
    services: Services,
    body: dict[str, Any],
    request: CreateResponse,
    principal: str,
    now: datetime,
    *,
    databricks: bool,
) -> tuple[Run, str]:
    """Commit a run and ring a worker. Returns the run as it is now, queued, and its response object as JSON."""
    previous = _previous(request)
    thread = request.thread
    if previous is not None:
        theirs = await services.database.run(lambda c: runs.thread_of(c, previous, principal))
        if theirs is None:
            raise PreviousNotFound(request.previous_response_id)
        thread = thread or theirs
    run_id, thread_id = new_uuid(), new_uuid()
    submission = Submission(
        run_id=run_id,
        thread_id=thread_id,
        thread=thread or f"conv_{thread_id.hex}",
        principal=principal,
        agent=_agent(request.model, services.settings),
        created_at=now,
        timeout_seconds=services.settings.task_timeout_seconds,
        background=bool(request.background),
        store=request.store is not False,
        tool_items=_tool_items(request, databricks),
        previous_run_id=previous,
        request=body,
    )
    response = _response(submission)
    entry = submissions.Entry(submission, _encoded(body), _first_events(response))
    await services.group_commit.store(entry)
    services.doorbell.ring(submission.queue, submission.run_id)
    return _queued(submission, entry.log), response


def first_events(submission: Submission) -> Chunk:
    """The log begins with the run: a client that streams has its id before any worker has seen it."""
    return _first_events(_response(submission))


def _first_events(response: str) -> Chunk:
    lines = [response_line(kind, n, response) for n, kind in enumerate((CREATED, QUEUED))]
    return Chunk(0, len(lines) - 1, "\n".join(lines))


def _response(submission: Submission) -> str:
    """The response object, as deep as it is within an event: what could not be one later is refused now."""
    return _encoded({"response": queued_response(submission)})[len('{"response":') : -1]


def _encoded(value: dict[str, Any]) -> str:
    try:
        return to_json(value)  # what can be read may be too deep to be written
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
    )
