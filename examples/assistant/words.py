"""Words of a text and the terms they are compared by. Pure, and the same for a file and a question."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from functools import lru_cache

__all__ = ["STOP_WORDS", "clean", "clip", "fold", "term", "terms", "words"]

STOP_WORDS = frozenset(
    """a about after again all also am an and any are as at be because been before being between both
    but by can cannot compare could describe did do does doing don each else ever explain few find for
    from get gets give go goes had happen happened happening happens has have having he hello her here
    hey hi him his how i if in into is it its just know let like long many may me mean means might more
    most much must my near no nor not of off often ok on once one only or other our out over please
    quite shall she should show so some such tell than thank thanks that the their them then there these
    they this those through to too under until up upon us very want was we were what when where whether
    which while who whom whose why will with would you your""".split()  # noqa: SIM905 - a quoted list of them is hard to read
)

# The ranges are the vowel signs and accents of scripts that need them; to Python's \w they are no letters.
_WORD = re.compile(r"(?:\w|[\u0300-\u036f\u0591-\u05c7\u064b-\u065f\u0900-\u0963\u0966-\u0dff\u0e30-\u0e4e])+")
# Scripts written without spaces; a run of their characters is compared by its pairs.
_UNSPACED = re.compile(r"[\u3040-\u30ff\u3400-\u9fff\u0e00-\u0e7f]+")
_SURROGATES = range(0xD800, 0xE000)
_CONTROLS = [*range(32), 127, *range(128, 160)]
# Postgres stores neither NUL nor a lone surrogate; the others would reach the reader's terminal.
_UNPRINTABLE = dict.fromkeys([*_CONTROLS, *_SURROGATES], " ") | {9: "\t", 10: "\n"}


def clean(text: str) -> str:
    """The text with ``\\n`` for every line end, and a space for whatever cannot be stored or shown."""
    return text.replace("\r\n", "\n").replace("\r", "\n").translate(_UNPRINTABLE)


def clip(text: str, size: int) -> str:
    """At most ``size`` characters, the last a "…" where something was cut."""
    return text if len(text) <= size else text[: size - 1].rstrip() + "…"


def words(text: str) -> Iterator[str]:
    """The words as written, an identifier whole: ``max_attempts``. Stop words are included."""
    return (match.group() for match in _WORD.finditer(text))


def terms(text: str) -> Iterator[str]:
    """What a text is found by: stemmed words without stop words, also the parts of identifiers."""
    for word in words(text):
        yield from _terms_of(word)


def term(word: str) -> str:
    """The first term of a word, empty for a stop word."""
    return next(iter(_terms_of(word)), "")


def fold(text: str) -> str:
    """Without case, accents and compatibility forms, for comparing."""
    if text.isascii():
        return text.lower()
    bare = (c for c in unicodedata.normalize("NFKD", text) if not unicodedata.combining(c))
    return unicodedata.normalize("NFC", "".join(bare)).casefold()


@lru_cache(maxsize=50_000)
def _terms_of(word: str) -> tuple[str, ...]:
    folded = fold(word)
    if _UNSPACED.search(folded):
        return tuple(_pairs(folded))
    parts = folded.split("_") if "_" in folded else ()
    return tuple(_stem(each) for each in (folded.strip("_"), *parts) if _counts(each))


def _counts(word: str) -> bool:
    return word not in STOP_WORDS and (len(word) > 1 or word.isdigit() or not word.isascii())


def _pairs(word: str) -> Iterator[str]:
    for run in _UNSPACED.findall(word):
        yield from (run[i : i + 2] for i in range(max(1, len(run) - 1)))
    yield from _UNSPACED.sub(" ", word).split()


def _stem(word: str) -> str:
    """English endings off, lightly: lease, leases and leased agree, and so do kill and killed."""
    if len(word) <= 3 or not (word.isascii() and word.isalpha()):
        return word
    word = _verb(_singular(word))
    return word[:-1] if len(word) > 3 and word.endswith("e") else word


def _singular(word: str) -> str:
    if word.endswith("ies") and len(word) > 4:
        return word[:-3] + "y"
    if word.endswith(("ses", "xes", "zes", "ches", "shes")):
        return word[:-2]
    return word if word.endswith(("ss", "us", "is")) or not word.endswith("s") else word[:-1]


def _verb(word: str) -> str:
    if word.endswith("ied") and len(word) > 4:
        return word[:-3] + "y"
    ending = next((e for e in ("ing", "ed") if word.endswith(e) and not word.endswith("eed")), "")
    root = word[: len(word) - len(ending)]
    if not ending or len(root) < 3 or not any(vowel in root for vowel in "aeiouy"):
        return word
    doubled = root[-1] == root[-2] and root[-1] not in "lsz"
    return root[:-1] if doubled else root
