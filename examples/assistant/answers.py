"""What the offline model makes of a tool's result: what it says of it, and what it does next. Pure."""

from __future__ import annotations

from .quotes import quotation, sentences
from .results import Lines, Listing
from .steps import Calculate, Clock, Quote, Read, Search, Step
from .words import clip

__all__ = ["follow", "say"]

QUOTED_PLACES = 3


def follow(step: Step, result: str) -> tuple[Step, ...]:
    """After a search the best places are read."""
    if not isinstance(step, Search):
        return ()
    places = Listing.read(result).places[:QUOTED_PLACES]
    return tuple(Quote(p.file, p.first_line, p.last_line, p.line, p.text) for p in places)


def say(step: Step, result: str) -> str:
    match step:
        case Search():
            return _found(step, Listing.read(result))
        case Quote():
            shown = Lines.read(result)
            choices = sentences(step.file, shown.first_line, shown.lines)
            return quotation(step.file, choices, step.line, step.text) if step.text else ""
        case Read():
            return result
        case Clock():
            return f"It is {result}."
        case Calculate():
            return f"{step.expression} = {result}"


def _found(step: Search, listing: Listing) -> str:
    query = f"“{clip(step.query, 200)}”"
    if not listing.places:
        return f"Nothing was found for {query} in {listing.searched}."
    best = f"The best matches for {query} in {listing.searched}:"
    return f"{listing.missing} {best}" if listing.missing else best
