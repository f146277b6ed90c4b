"""Choosing the sentences of a passage that answer best. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from .passages import defined_word, is_fence, is_prose
from .words import clip, terms

__all__ = ["Sentence", "best_sentence", "excerpt", "quotation", "sentences"]

MAX_QUOTE = 320
MAX_SENTENCE = 400
SHORT_LINE = 50

# What begins a line of a list, a quotation or a table; all but the table's bar is left out of a quote.
_MARK = re.compile(r"(?:(?:[-*+>]|#{1,6}|\d{1,3}[.)])\s+)+|(?=\|)")
_RULE = re.compile(r"[=~^\-|:\s+]+")
_END = re.compile(r"(?<=[.!?])(?<!\*\d\.)(?<!\*\d\d\.)\s+(?=[^a-z\s])|(?<=[。！？])")


@dataclass(frozen=True, slots=True)
class Sentence:
    """A sentence, a row of a table or a line of code. ``joint`` stands between it and the one before."""

    line: int
    text: str
    joint: str = " "
    is_heading: bool = False


def sentences(file: str, first_line: int, lines: Sequence[str]) -> tuple[Sentence, ...]:
    """The sentences of one passage, in order, as they stand but for line breaks and list marks."""
    if is_prose(file) and not any(map(is_fence, lines)):
        return tuple(_prose(first_line, lines))
    return tuple(
        Sentence(number, line.rstrip(), "\n")
        for number, line in enumerate(lines, first_line)
        if line.strip() and not is_fence(line)
    )


def best_sentence(choices: Sequence[Sentence], rarity: Mapping[str, float]) -> tuple[Sentence, float]:
    """The sentence that says most of the terms, and the rarity of those it has; the first among equals."""
    scored = [(_relevance(each, rarity), -place, each) for place, each in enumerate(choices)]
    relevance, _, best = max(scored)
    return best, relevance


def quotation(file: str, choices: Sequence[Sentence], line: int, text: str) -> str:
    """The sentence found at ``line``, and those that follow while they fit, as ``text [file:line]``.

    ``text`` is that sentence, or an `excerpt` of it.
    """
    core, quoted = text.strip("…"), text
    found = (place for place, each in enumerate(choices) if each.line == line and core in each.text)
    for following in choices[next(found, len(choices)) + 1 :]:
        if len(quoted) + len(following.text) > MAX_QUOTE:
            break
        quoted += following.joint + following.text
    return f"{quoted} [{file}:{line}]"


def excerpt(text: str, rarity: Mapping[str, float]) -> str:
    """The text, or when it is very long the part of it where a term stands."""
    if len(text) <= MAX_SENTENCE:
        return text
    places = (match.start() for match in re.finditer(r"\w+", text) if _has_term(match.group(), rarity))
    start = text.rfind(" ", 0, max(0, next(places, 0) - MAX_SENTENCE // 4)) + 1
    return ("…" if start else "") + clip(text[start:], MAX_SENTENCE)


def _prose(first_line: int, lines: Sequence[str]) -> list[Sentence]:
    done: list[Sentence] = []
    goes_on = False
    for number, line in enumerate(lines, first_line):
        text = line.strip()
        if not text or _RULE.fullmatch(text):
            goes_on = False
            continue
        begun = _begun(number, text)
        if done and done[-1].is_heading:
            begun[0] = replace(begun[0], joint="\n")
        elif goes_on and not _MARK.match(text):
            first, *begun = begun
            done[-1] = replace(done[-1], text=f"{done[-1].text} {first.text}")
        done += begun
        goes_on = _is_unfinished(done[-1], text)
    return done


def _begun(number: int, text: str) -> list[Sentence]:
    """The sentences that a line would hold if none went on from the line before."""
    mark = _MARK.match(text)
    bare = text[mark.end() :] if mark else text
    first, *others = [each for each in _END.split(bare) if each] or [text]
    lead = Sentence(number, first, "\n" if mark else " ", text.startswith("#"))
    return [lead, *(Sentence(number, each) for each in others)]


def _is_unfinished(sentence: Sentence, line: str) -> bool:
    """Wrapped text fills its lines: a short one without a full stop is an entry of its own."""
    ended = line.endswith((".", "!", "?", ":", "。")) or line.startswith("|") or sentence.is_heading
    return not ended and len(line) >= SHORT_LINE


def _relevance(sentence: Sentence, rarity: Mapping[str, float]) -> float:
    """A definition counts for more than a mention, a heading for less, and a question answers nothing."""
    weight = sum(rarity[each] for each in set(terms(sentence.text)) if each in rarity)
    weight *= 2.0 if _defines(sentence.text, rarity) else 1.0
    weight *= 0.5 if sentence.is_heading else 1.0
    return weight * (0.5 if sentence.text.rstrip("\"'”’*_) ").endswith("?") else 1.0)


def _defines(text: str, rarity: Mapping[str, float]) -> bool:
    return any(each in rarity for each in terms(defined_word(text)))


def _has_term(word: str, rarity: Mapping[str, float]) -> bool:
    return any(each in rarity for each in terms(word))
