"""What a run must have answered, and what its thread must hold: exactly what nobody's death would have changed."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

from tests.chaos import scenario
from tests.chaos.checker.evidence import Evidence, Stored
from tests.chaos.checker.violations import Violation


def check(evidence: Evidence) -> Iterator[Violation]:
    threads: dict[str, list[Stored]] = defaultdict(list)
    for run in evidence.runs.values():  # in the order in which they were started
        threads[run.thread].append(run)
    for thread, runs in threads.items():
        for number, run in enumerate(runs):
            before = [earlier.token for earlier in runs[: number + 1] if earlier.agent == run.agent]
            yield from (Violation("answer", run.token, sentence) for sentence in _answer(run, before))
        if thread in evidence.states:
            yield from _state(runs, evidence.states[thread])
    yield from _order(evidence)


def _answer(run: Stored, tokens: list[str]) -> Iterator[str]:
    if run.response is not None and run.agent == scenario.MISHAP and run.status == "failed":
        expected, said = scenario.MISHAPS[scenario.mishap(run.token)], run.response["error"]["message"]
        if said != expected:
            yield f"it fails by {said!r} where {expected!r} is right"
    if run.response is None or run.status != "completed":
        return
    said = [scenario.item_text(item) for item in run.response["output"]]
    expected = list(scenario.answers(run.agent, tokens))
    # Branches speak at the same time: which of them comes first is nobody's promise.
    in_order = run.agent != scenario.BRANCHES
    if (said if in_order else sorted(said)) != (expected if in_order else sorted(expected)):
        missing, more = [t for t in expected if t not in said], [t for t in said if t not in expected]
        yield f"it answers {len(said)} items where {len(expected)} are right; missing {missing}, too many {more}"
    for item in run.response["output"]:
        if item["status"] != "completed":
            yield f"its answer has an item that is {item['status']}"
        text = "".join(part["text"] for part in item.get("content") or ())
        if len(scenario.attempts_in(text)) > 1:
            yield f"one item of its answer was said by several attempts: {text}"


def _state(runs: list[Stored], state: list[str]) -> Iterator[Violation]:
    """Graphs of two kinds in one thread would need another expectation: clients do not mix them."""
    tokens = [run.token for run in runs]
    expected = scenario.state(runs[0].agent, tokens)
    said = [scenario.plain(text) for text in state]
    if said != expected and all(run.status == "completed" for run in runs):
        missing, more = [t for t in expected if t not in said], [t for t in said if t not in expected]
        sentence = f"the state has {len(said)} messages, not {len(expected)}; missing {missing}, too many {more}"
        yield Violation("state", tokens[-1], sentence)


def _order(evidence: Evidence) -> Iterator[Violation]:
    """Of a conversation's runs, each known to its client before it asked for the next."""
    last: dict[str, Stored] = {}
    for watched in evidence.watched:
        run = evidence.runs.get(watched.token)
        if not watched.conversation or not watched.run or run is None or run.started_at is None:
            continue
        before = last.get(watched.conversation)
        if before is not None and before.started_at and before.started_at > run.started_at:
            yield Violation("thread", run.token, f"it was submitted after {before.token} and begun before it")
        last[watched.conversation] = run
