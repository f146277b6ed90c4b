"""From what an agent emits to the Responses API's items and events. Pure: no I/O, no clock, no framework."""

from .emissions import EmissionError
from .output import Output

__all__ = ["EmissionError", "Output"]
