"""Following event logs: one hub per watched run, one reader for all of them, hints to wake it."""

from .hub import Batch, StreamCut, Viewer
from .tail import Tail

__all__ = ["Batch", "StreamCut", "Tail", "Viewer"]
