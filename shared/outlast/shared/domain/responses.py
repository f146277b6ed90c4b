"""The response object: a run as the Responses API shows it. Pure.

The 31 keys that Open Responses requires are always there, and ours beside them: ``attempt_number``, ``conversation``
and ``custom_outputs``. ``usage`` is never null, and the numbers are numbers: clients of several makes need that.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID

from .ids import response_id
from .runs import Run, RunStatus, Submission


def usage_object(input_tokens: int = 0, output_tokens: int = 0, cached: int = 0, reasoning: int = 0) -> dict[str, Any]:
    return {
        "input_tokens": input_tokens,
        "input_tokens_details": {"cached_tokens": cached, "cache_write_tokens": 0},
        "output_tokens": output_tokens,
        "output_tokens_details": {"reasoning_tokens": reasoning},
        "total_tokens": input_tokens + output_tokens,
    }


def error_object(code: str, message: str) -> dict[str, Any]:
    """Why a run failed. All four keys: a client of another make refuses the object otherwise."""
    return {"code": code, "message": message, "type": "server_error", "param": None}


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a response shows beyond its request: nothing at first, everything at the end."""

    status: RunStatus
    output: Sequence[Mapping[str, Any]] = ()
    usage: Mapping[str, Any] = field(default_factory=usage_object)
    error: Mapping[str, Any] | None = None
    incomplete_details: Mapping[str, Any] | None = None
    custom_outputs: Mapping[str, Any] = field(default_factory=dict[str, Any])
    completed_at: datetime | None = None


def queued_response(submission: Submission) -> dict[str, Any]:
    """The object of a run that has just been accepted."""
    return _object(
        submission.run_id, submission.agent, submission.thread, submission.created_at, submission.background,
        submission.store, submission.request, attempt=0, outcome=Outcome(RunStatus.QUEUED),
    )  # fmt: skip


def response_object(run: Run, outcome: Outcome | None = None) -> dict[str, Any]:
    """The object of a run, as it is or as ``outcome`` makes it."""
    return _object(
        run.run_id, run.agent, run.thread, run.created_at, run.background,
        run.store, run.request, attempt=run.attempt, outcome=outcome or Outcome(run.status),
    )  # fmt: skip


def _object(
    run_id: UUID,
    agent: str,
    thread: str,
    created_at: datetime,
    background: bool,
    store: bool,
    request: Mapping[str, Any],
    *,
    attempt: int,
    outcome: Outcome,
) -> dict[str, Any]:
    completed = outcome.status is RunStatus.COMPLETED and outcome.completed_at is not None
    return {
        "id": response_id(run_id),
        "object": "response",
        "created_at": int(created_at.timestamp()),
        "completed_at": int(outcome.completed_at.timestamp()) if completed and outcome.completed_at else None,
        "status": outcome.status.value,
        "incomplete_details": outcome.incomplete_details,
        "model": request.get("model") or agent,
        "previous_response_id": request.get("previous_response_id"),
        "instructions": request.get("instructions"),
        "output": list(outcome.output),
        "error": outcome.error,
        "tools": [_tool(tool) for tool in request.get("tools") or ()],
        "tool_choice": _tool_choice(request.get("tool_choice") or "auto"),
        "truncation": request.get("truncation") or "disabled",
        "parallel_tool_calls": _given(request, "parallel_tool_calls", True),
        "text": _text(request.get("text") or {}),
        "top_p": _given(request, "top_p", 1.0),
        "presence_penalty": _given(request, "presence_penalty", 0.0),
        "frequency_penalty": _given(request, "frequency_penalty", 0.0),
        "top_logprobs": _given(request, "top_logprobs", 0),
        "temperature": _given(request, "temperature", 1.0),
        "reasoning": _reasoning(request.get("reasoning")),
        "usage": outcome.usage,
        "max_output_tokens": request.get("max_output_tokens"),
        "max_tool_calls": request.get("max_tool_calls"),
        "store": store,
        "background": background,
        "service_tier": request.get("service_tier") or "default",
        "metadata": request.get("metadata") or {},
        "safety_identifier": request.get("safety_identifier"),
        "prompt_cache_key": request.get("prompt_cache_key"),
        "user": request.get("user"),
        "attempt_number": attempt,
        "conversation": {"id": thread},
        "custom_outputs": dict(outcome.custom_outputs),
    }


def _given(request: Mapping[str, Any], name: str, default: Any) -> Any:
    value = request.get(name)
    return default if value is None else value


def _tool(tool: Mapping[str, Any]) -> dict[str, Any]:
    """A function tool with every key the schema requires; any other tool as it was given."""
    if tool.get("type") != "function":
        return dict(tool)
    return {"description": None, "parameters": None, "strict": None, **tool}


def _tool_choice(choice: str | Mapping[str, Any]) -> str | dict[str, Any]:
    if isinstance(choice, str):
        return choice
    return {"mode": "auto", **choice} if choice.get("type") == "allowed_tools" else dict(choice)


def _text(text: Mapping[str, Any]) -> dict[str, Any]:
    given = {name: value for name, value in text.items() if value is not None}
    form: dict[str, Any] = given.pop("format", {"type": "text"})
    if form.get("type") == "json_schema":
        form = {"description": None, "strict": False, **form}
    return {"format": form, **given}


def _reasoning(reasoning: Mapping[str, Any] | None) -> dict[str, Any] | None:
    return {"effort": None, "summary": None, **reasoning} if reasoning else None
