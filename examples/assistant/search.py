"""Ranking passages by a question's words: Okapi BM25, then how much of it one sentence says. Pure."""

from __future__ import annotations

import heapq
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from .passages import Passage
from .quotes import Sentence, best_sentence, sentences
from .words import terms, words

__all__ = ["Place", "Ranking", "rank"]

K1 = 1.2
B = 0.75
RERANKED = 60
EXAMPLE_WEIGHT = 0.6
WORTH_SHOWING = 0.4
"""Of the best place's score: what scores less is left out."""


@dataclass(frozen=True, slots=True)
class Place:
    """A passage found, and the sentence of it to look at first."""

    passage: Passage
    sentence: Sentence
    score: float


@dataclass(frozen=True, slots=True)
class Ranking:
    """The best places first. ``rarity`` weighs the terms found; the words in ``missing`` were not."""

    places: tuple[Place, ...]
    rarity: Mapping[str, float]
    missing: tuple[str, ...]


def rank(corpus: Sequence[Passage], query: str, limit: int = 5) -> Ranking:
    """The passages that match, best first, ties in the order of the corpus; none twice with the same text."""
    asked = dict.fromkeys(terms(query))
    rarity = _rarity(corpus, asked)
    missing = tuple(word for word in words(query) if _is_missing(word, rarity))
    typical = sum(each.size for each in corpus) / max(1, len(corpus))
    scores = ((_bm25(passage, rarity, typical), -place) for place, passage in enumerate(corpus))
    best = heapq.nlargest(RERANKED, (each for each in scores if each[0] > 0))
    places = sorted((_place(corpus[-index], score, rarity) for score, index in best), key=lambda p: -p.score)
    return Ranking(tuple(_distinct(places)[:limit]), rarity, tuple(dict.fromkeys(missing)))


def _rarity(corpus: Sequence[Passage], asked: Iterable[str]) -> Mapping[str, float]:
    """The inverse document frequency of each term that occurs at all."""
    holders = {each: sum(each in passage.weights for passage in corpus) for each in asked}
    return {each: math.log(1 + (len(corpus) - n + 0.5) / (n + 0.5)) for each, n in holders.items() if n}


def _is_missing(word: str, rarity: Mapping[str, float]) -> bool:
    wanted = tuple(terms(word))
    return bool(wanted) and not any(each in rarity for each in wanted)


def _bm25(passage: Passage, rarity: Mapping[str, float], typical: float) -> float:
    damping = K1 * (1 - B + B * passage.size / typical)
    found = ((weight, passage.weights.get(each, 0.0)) for each, weight in rarity.items())
    return sum(weight * count * (K1 + 1) / (count + damping) for weight, count in found)


def _place(passage: Passage, score: float, rarity: Mapping[str, float]) -> Place:
    """Scored in full when one sentence has all the words, down to half when none has any."""
    choices = sentences(passage.file, passage.first_line, passage.lines)
    if not choices:
        return Place(passage, Sentence(passage.first_line, ""), 0.0)
    sentence, relevance = best_sentence(choices, rarity)
    score *= EXAMPLE_WEIGHT if passage.is_example else 1.0
    return Place(passage, sentence, score * (0.5 + 0.5 * relevance / sum(rarity.values())))


def _distinct(places: Sequence[Place]) -> list[Place]:
    """Without copies of the same lines, and without those far behind the first."""
    first_of = {each.passage.lines: each for each in reversed(places)}
    kept = [each for each in places if first_of[each.passage.lines] is each and each.score > 0]
    return [each for each in kept if each.score >= WORTH_SHOWING * kept[0].score]
