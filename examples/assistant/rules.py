"""What a question asks for, as steps: the rules that stand where a language model would. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator

from .calculator import MAX_LENGTH
from .steps import Calculate, Clock, Read, Search, Step
from .words import clean, term, terms, words

__all__ = ["plan"]

MAX_CLAUSE = 500
MAX_WORDS = 48
READ_AT_EACH_END = 10_000

_CLAUSE_END = re.compile(r"[?!;\n]+|(?<=[.])\s|(?<=\s)(?:and|then|also)(?=\s)", re.IGNORECASE)
_POLITE = re.compile(
    r"(?:(?:hey|hi|hello|please|(?:can|could|would) you|tell me|search for|look up|look for)[ ,]+)*",
    re.IGNORECASE,
)
_WHAT = r"what(?:['’]s|\ is)"
_CLOCK = re.compile(
    rf"""(?: (?P<asked>what\ time\ is\ it) | (?:{_WHAT}\ )?(?:the\ )?(?:current\ |local\ )?(?:time|date)
    | what\ (?:day|date)\ is\ (?:it|today) | (?:{_WHAT}\ )?today['’]s\ date )
    (?:\ right)?(?:\ now|\ today)?
    (?:\ in\ (?:the\ )?(?P<place>[\w/+\-]{{1,40}}(?:\ [\w/+\-]{{1,40}}){{0,2}}?))?
    (?:\ right)?(?:\ now|\ today)?""",
    re.IGNORECASE | re.VERBOSE,
)
_PLACE = re.compile(r"(?:in )?(?P<place>[^\W\da-z][\w/]{1,40}(?: [^\W\da-z][\w/]{1,40}){0,2})")

_ARITHMETIC = re.compile(
    r"(?:(?P<order>calculate|compute|evaluate)|what(?:['’]s| is| are)|how much (?:is|are))? ?(?P<rest>.+)",
    re.IGNORECASE | re.DOTALL,
)
_SPOKEN = (
    (re.compile(r"\b(?:multiplied by|times)\b|[×·]", re.IGNORECASE), "*"),
    (re.compile(r"\bdivided by\b|÷", re.IGNORECASE), "/"),
    (re.compile(r"\bplus\b", re.IGNORECASE), "+"),
    (re.compile(r"\bminus\b|−", re.IGNORECASE), "-"),
    (re.compile(r"\bto the power of\b|\^", re.IGNORECASE), "**"),
)
_SUM = re.compile(r"(?=.*\d)(?=.*[-+*/%])[-+(.\d][\d.eE_+\-*/%() ]*", re.DOTALL)
_DATE = re.compile(r"\d{4}-\d\d-\d\d")

_NAME = r"(?:\"(?P<quoted>[^\"]+)\"|[`'](?P<ticked>[^`']+)[`']|(?P<bare>[^\s:\"'`]+))"
_LINES = r"(?:lines? )?(?P<first>\d{1,9})(?: ?(?:-|–|to|until|through) ?(?P<last>\d{1,9}))?"
_VERB = r"(?:read|show|open|print|cat|display|view)(?: me)?"
_READS = tuple(
    re.compile(pattern, re.IGNORECASE)
    for pattern in (
        rf"{_VERB}(?: the)?(?P<file> file)? {_NAME}(?:[ ,:]+\(?(?:from )?{_LINES}\)?)?",
        rf"{_VERB}(?: the)? {_LINES} (?:of|from|in)(?: the)?(?P<file> file)? {_NAME}",
        rf"{_NAME}:{_LINES}",
    )
)
_PATH = re.compile(r".*[/\\].*|.*\.\w{1,8}", re.DOTALL)


def plan(question: str) -> tuple[Step, ...]:
    """The steps, in the order asked; what no other tool takes becomes one search, which comes last.

    Empty when nothing is asked. Of a very long question the beginning and the end are looked at.
    """
    text = clean(_ends(question)).strip()
    if text.strip(" ?.!").lower() == "help":
        return ()
    if "\n" not in text and (step := _tool_step(_tidy(text))):
        return (step,)
    steps: list[Step] = []
    unclaimed: list[str] = []
    for clause in map(_tidy, _CLAUSE_END.split(text)):
        step = _tool_step(clause) or _another_clock(clause, steps)
        steps += [step] if step else []
        unclaimed += [] if step else [clause]
    return (*steps, *_search("\n".join(unclaimed)))


def _ends(question: str) -> str:
    if len(question) <= 2 * READ_AT_EACH_END:
        return question
    return f"{question[:READ_AT_EACH_END]} {question[-READ_AT_EACH_END:]}"


def _tidy(clause: str) -> str:
    """One space between words, no manners before and no punctuation after."""
    text = " ".join(clause.split()).rstrip(" .,:;!?=")
    return text[_end_of_manners(text) :]


def _end_of_manners(text: str) -> int:
    match = _POLITE.match(text)
    return match.end() if match else 0


def _tool_step(clause: str) -> Step | None:
    if step := _calculate(clause):
        return step
    if len(clause) > MAX_CLAUSE:
        return None
    return _clock(clause) or _read(clause)


def _clock(clause: str) -> Clock | None:
    match = _CLOCK.fullmatch(clause)
    if match is None:
        return None
    place = match["place"]
    # "The time in seconds" is no place; after "what time is it" there is no doubt.
    if place and not match["asked"] and place.islower() and "/" not in place:
        return None
    return Clock(place)


def _another_clock(clause: str, steps: list[Step]) -> Clock | None:
    """The second place in "what time is it in Tokyo and in New York"."""
    match = _PLACE.fullmatch(clause) if steps and isinstance(steps[-1], Clock) else None
    return Clock(match["place"]) if match else None


def _calculate(clause: str) -> Calculate | None:
    match = _ARITHMETIC.fullmatch(clause)
    if match is None:
        return None
    expression = match["rest"][: MAX_LENGTH + 1]  # one too many is enough for the tool to refuse it
    for spoken, written in _SPOKEN:
        expression = spoken.sub(written, expression)
    if _DATE.fullmatch(expression) or not (_SUM.fullmatch(expression) or _is_ordered(match, expression)):
        return None
    return Calculate(expression.strip())


def _is_ordered(match: re.Match[str], expression: str) -> bool:
    """Whether "calculate" is followed by what can only be meant as a sum, be it a bad one."""
    return bool(match["order"]) and " " not in expression and not expression.isalpha()


def _read(clause: str) -> Read | None:
    match = next(filter(None, (pattern.fullmatch(clause) for pattern in _READS)), None)
    if match is None:
        return None
    groups = match.groupdict()
    named = groups["quoted"] or groups["ticked"]
    name = named or groups["bare"]
    if not (named or groups.get("file") or _PATH.fullmatch(name)):
        return None
    if groups["first"] is None:
        return Read(name)
    first = int(groups["first"])
    return Read(name, first, int(groups["last"] or first))


def _search(text: str) -> Iterator[Search]:
    """A search for the words that mean something, in the order and the form they were written."""
    found = {term(word): word for word in reversed(list(words(text))) if next(terms(word), None)}
    kept = list(reversed(found.values()))
    if len(kept) > MAX_WORDS:
        kept = kept[: MAX_WORDS // 2] + kept[-MAX_WORDS // 2 :]
    if kept:
        yield Search(" ".join(kept))
