"""Texts that must not be shown or stored."""

from __future__ import annotations

from collections.abc import Callable
from typing import NoReturn


class Secret:
    """A text that only `reveal` shows. It cannot be pickled or stored in another way."""

    __slots__ = ("reveal",)
    reveal: Callable[[], str]  # not named as pydantic's: LangGraph stores in clear what has a method of that name

    def __init__(self, value: str) -> None:
        self.reveal = lambda: value  # no attribute has it: serialisers look into those of strange objects

    def __repr__(self) -> str:
        return "Secret('***')"

    def __copy__(self) -> Secret:
        return self

    def __deepcopy__(self, memo: object) -> Secret:
        return self

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        raise TypeError("A Secret cannot be stored")
