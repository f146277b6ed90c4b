"""From what an agent emits to the Responses API's items and events. Pure: no I/O, no clock, no framework."""

from .output import EmissionError, Output

__all__ = ["EmissionError", "Output"]
