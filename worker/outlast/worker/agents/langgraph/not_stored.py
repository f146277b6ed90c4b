"""What stands in a checkpoint for a value that cannot be stored: code that uses it fails, with words."""

from __future__ import annotations

from typing import Any, NoReturn

from outlast.agent import AgentError

CODE = "state_not_stored"


class NotStoredError(AgentError, AttributeError):
    """A value was used that had not been stored. It is no mistake to ask whether it has an attribute (`hasattr`)."""

    def __init__(self, channel: str, kind: str) -> None:
        super().__init__(
            f"The channel {channel!r} held a {kind}, which cannot be stored with the conversation's state and is gone. "
            "Make it plain data (or a dataclass or pydantic model of plain data), or annotate the channel with "
            "langgraph.channels.UntrackedValue and set it in each run.",
            code=CODE,
        )


class NotStored:
    """In place of a value of this ``channel``, which was a ``kind`` (the name of its type).

    It can be carried on, stored again and shown. Any other use is a mistake of the graph, which ``None`` would hide.
    """

    def __init__(self, channel: str, kind: str, run: str) -> None:
        """``run`` could not store it."""
        self.fields = {"channel": channel, "kind": kind, "run": run}

    def _asdict(self) -> dict[str, str]:
        """What LangGraph's serialiser stores, and gives back as arguments, of one within another value."""
        return self.fields

    def __repr__(self) -> str:
        return f"<{self.fields['kind']} of the channel {self.fields['channel']}, not stored>"

    def __getattr__(self, name: str) -> NoReturn:
        if name.startswith("__"):
            raise AttributeError(name)
        self._fail()

    def _fail(self, *_: Any) -> NoReturn:
        raise NotStoredError(self.fields["channel"], self.fields["kind"])

    __str__ = __format__ = __bool__ = __len__ = __iter__ = __contains__ = __getitem__ = __setitem__ = _fail
    __call__ = __enter__ = __int__ = __float__ = __index__ = __neg__ = __invert__ = _fail
    __lt__ = __le__ = __gt__ = __ge__ = _fail
    __add__ = __radd__ = __sub__ = __rsub__ = __mul__ = __rmul__ = __truediv__ = __or__ = __ror__ = __and__ = _fail
