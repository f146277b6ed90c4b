"""What the ledger tells: no step is run again that had been kept, and no attempt has a say after the next has begun.

A step of a graph is kept when LangGraph has stored its result, which with durability ``sync`` is before any step that
follows it begins. A step that ended and was not kept when its worker died may be run again: counted, not judged.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import pairwise

from tests.chaos import scenario
from tests.chaos.checker.evidence import Evidence, Stored
from tests.chaos.checker.violations import Violation
from tests.chaos.ledger import BEGIN, EFFECT, END, KEPT, SAY, Entry


def check(evidence: Evidence) -> Iterator[Violation]:
    by_token: dict[str, list[Entry]] = defaultdict(list)
    for entry in evidence.ledger:
        by_token[entry.token].append(entry)
    for token, run in evidence.runs.items():
        entries = by_token.get(token, [])
        for kind, found in (
            ("skipped", _skipped(run, entries)),
            ("re-run", _passed(run, entries)),
            ("late", _late(run, entries)),
        ):
            yield from (Violation(kind, token, sentence) for sentence in found)
    yield from _kept(evidence.ledger)
    yield from _threads(evidence, by_token)


def _threads(evidence: Evidence, by_token: Mapping[str, Sequence[Entry]]) -> Iterator[Violation]:
    """No run of a thread begins before the one before it has come to its end."""
    threads: dict[str, list[Stored]] = defaultdict(list)
    for run in evidence.runs.values():  # in the order in which they were started
        threads[run.thread].append(run)
    for first, second in (pair for runs in threads.values() for pair in pairwise(runs)):
        last = scenario.steps(first.agent)[-1]
        ends = [entry.at for entry in by_token.get(first.token, ()) if entry.kind == END and entry.step == last]
        begun = [entry.at for entry in by_token.get(second.token, ())]
        if begun and (not ends or begun[0] < ends[0]):
            yield Violation("thread", second.token, f"it began before {first.token} of the same thread had ended")


def _skipped(run: Stored, entries: Iterable[Entry]) -> Iterator[str]:
    """A run that has completed has done all it had to do."""
    if run.status != "completed":
        return
    done = {entry.step for entry in entries if entry.kind == END}
    if missing := [step for step in scenario.steps(run.agent) if step not in done]:
        yield f"it completed without {missing}"
    effects = [entry for entry in entries if entry.kind == EFFECT]
    if "effect" in scenario.steps(run.agent) and not effects:
        yield "it completed without its effect"
    for key in {entry.detail for entry in effects} - {scenario.effect_key(run.token)}:
        yield f"an attempt used the idempotency key {key}"


def _passed(run: Stored, entries: Sequence[Entry]) -> Iterator[str]:
    """Once an attempt has gone on to what follows a step, no later attempt begins the step."""
    first_to_begin: dict[str, int] = {}
    for entry in entries:
        if entry.kind == BEGIN:
            first_to_begin[entry.step] = min(entry.attempt, first_to_begin.get(entry.step, entry.attempt))
    for entry in entries:
        if entry.kind != BEGIN:
            continue
        for follower in sorted(scenario.later(run.agent, entry.step)):
            before = first_to_begin.get(follower, entry.attempt)
            if before < entry.attempt:
                yield f"attempt {entry.attempt} ran {entry.step}, although attempt {before} was at {follower}"
                break


def _kept(ledger: Iterable[Entry]) -> Iterator[Violation]:
    """Nobody but a fenced attempt begins a task whose result is stored. This holds for parallel branches, too."""
    begun: dict[str, int] = {}
    kept_by: dict[str, int] = {}
    for entry in ledger:
        if entry.kind == BEGIN and entry.task:
            by = kept_by.get(entry.task)
            if by is not None and entry.attempt >= by:
                sentence = f"attempt {entry.attempt} ran {entry.step}, whose result attempt {by} had stored"
                yield Violation("re-run", entry.token, sentence)
            begun[entry.task] = max(entry.attempt, begun.get(entry.task, 0))
        elif entry.kind == KEPT and entry.task in begun:
            kept_by.setdefault(entry.task, begun[entry.task])


def _late(run: Stored, entries: Iterable[Entry]) -> Iterator[str]:
    """What an attempt said after the next one had begun is in no log: the fence had moved before."""
    latest = 0
    late: list[str] = []
    for entry in entries:
        if entry.kind == SAY and entry.attempt < latest:
            late.append(entry.detail)
        latest = max(latest, entry.attempt)
    if late:
        events = [json.loads(line) for line in run.lines]
        logged = {word for event in events for word in str(event.get("delta", "")).split()}
        for word in sorted(logged.intersection(late)):
            yield f"{word} is in the log, and was said when attempt {word.partition('|')[0]} had been replaced"


def run_again(ledger: Iterable[Entry]) -> int:
    """How many times a step was begun that had been begun before in the same run."""
    begun = Counter((entry.token, entry.step) for entry in ledger if entry.kind == BEGIN)
    return sum(times - 1 for times in begun.values())
