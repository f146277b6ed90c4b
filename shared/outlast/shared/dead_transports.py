"""What event loops raise for a connection that is gone, where a program would expect a ConnectionError."""

from __future__ import annotations

import re

# By their words alone: both loops raise a plain RuntimeError, as for many a mistake, which must not pass for an outage.
_SAID = re.compile(
    r"unable to perform operation on <.*>; the handler is closed"  # uvloop, of a transport
    r"|File descriptor .+ is used by transport .+",  # both, of a socket that was closed and whose number came again
    re.DOTALL,
)


def is_dead_transport(error: RuntimeError) -> bool:
    """Whether a loop says so of a connection that has been closed meanwhile."""
    return type(error) is RuntimeError and _SAID.fullmatch(str(error)) is not None
