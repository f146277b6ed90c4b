"""Streams that tell what they have cost: models are asked for it, unless their author or their endpoint will not.

Chat completions tell the tokens of a stream only when asked (``stream_options.include_usage``), and LangChain does not
ask where a base URL is set: not every endpoint knows the option.
"""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from typing import Any, TypeAlias

from langchain_core.language_models import BaseChatModel

_FIELD = "stream_usage"
_REFUSALS = (400, 422)
_Endpoint: TypeAlias = tuple[str, Any, Any]
_answering: set[_Endpoint] = set()
_refusing: set[_Endpoint] = set()
"""The endpoints' models that have answered when asked, and those that have not, in this process."""


def ask(model: BaseChatModel) -> bool:
    """Have the model ask from now on, if its author has said nothing about it.

    Returns whether its endpoint has yet to show that it can be asked.
    """
    if _FIELD not in type(model).model_fields or _FIELD in model.model_fields_set or _endpoint(model) in _refusing:
        return False
    _set(model, True)
    return _endpoint(model) not in _answering


def answered(model: BaseChatModel) -> None:
    """Its endpoint can be asked: what goes wrong from now on has other reasons."""
    _answering.add(_endpoint(model))


@contextmanager
def without(model: BaseChatModel, error: Exception) -> Generator[None]:
    """For making a call again that has failed, without asking: an endpoint may refuse what it does not know.

    Raises the error when it is of another kind.
    """
    if getattr(error, "status_code", None) not in _REFUSALS:
        raise error
    _set(model, False)
    try:
        yield
    except Exception:
        _set(model, True)  # that was not it
        raise
    _refusing.add(_endpoint(model))


def _set(model: Any, value: bool) -> None:
    """Not as an attribute, after which it would look as if its author had set it."""
    vars(model)[_FIELD] = value


def _endpoint(model: Any) -> _Endpoint:
    return type(model).__name__, getattr(model, "openai_api_base", None), getattr(model, "model_name", None)
