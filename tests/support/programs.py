"""Random small programs of the kind that LangGraph runs, and what checkpoints may hold of one that was stopped.

A graph is a list of steps, a step a list of tasks that run side by side, and a task may hold graphs or tasks of its
own. An attempt runs what no checkpoint holds, its tasks interleaved. A checkpoint holds of each graph a step, and of
the step after it the results of some tasks.
"""

from __future__ import annotations

import random
from collections.abc import Collection, Generator, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from outlast.shared.output.items import Path
from outlast.worker.agents.langgraph.survival import Reached

Action = tuple[Any, ...]
Graph = list[list["Task"]]
Durable = dict[str, Reached]
"""By namespace: how far the stored checkpoints of each graph have come."""


@dataclass(frozen=True)
class Task:
    name: str
    before: list[Action]
    """What it says before its graphs and tasks run."""
    after: list[Action]
    graphs: list[Graph] = field(default_factory=list[Graph])
    """Graphs within it, one after another."""
    calls: list[Task] = field(default_factory=list["Task"])
    """Tasks that it calls, as the functional API does: each is kept by itself."""


@dataclass(frozen=True)
class Said:
    """A moment of an attempt at which a task does something."""

    path: Path
    action: Action


@dataclass(frozen=True)
class Finished:
    """A moment after which the result of a task may be stored."""

    namespace: str
    step: int
    task: str


@dataclass(frozen=True)
class Stepped:
    """A moment after which the checkpoint of a step may be stored."""

    namespace: str
    step: int


Moment = Said | Finished | Stepped

# -- a random program --------------------------------------------------------------------------------------------------


class Writer:
    """Makes programs up."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self.never_answered: set[str] = set()
        self._tasks = 0

    def graph(self, *, depth: int = 0, alone: bool = True) -> Graph:
        steps: Graph = []
        unanswered: list[str] = []
        for _ in range(self._rng.randint(1, 3 - depth)):
            width = self._rng.choice((1, 1, 2, 3))
            answers = [("answer", call) for call in unanswered]
            unanswered.clear()
            tasks = [self._task(depth, alone and width == 1, unanswered) for _ in range(width)]
            tasks[0].before.extend(answers)
            steps.append(tasks)
        self.never_answered |= set(unanswered)
        return steps

    def _task(self, depth: int, alone: bool, unanswered: list[str]) -> Task:
        """``unanswered`` gets the calls that the next step has to answer."""
        self._tasks += 1
        task = Task(f"t{self._tasks}", self._script(alone, unanswered), self._script(alone, unanswered))
        inner = self._rng.random() if depth < 2 else 1.0
        if inner < 0.25:
            task.graphs.extend(self.graph(depth=depth + 1, alone=alone) for _ in range(self._rng.choice((1, 1, 2))))
        elif inner < 0.4:
            for _ in range(self._rng.randint(1, 2)):
                self._tasks += 1
                task.calls.append(Task(f"t{self._tasks}", self._script(alone, unanswered), []))
        return task

    def _script(self, alone: bool, unanswered: list[str]) -> list[Action]:
        kinds = ("say", "say", "say", "call", "call later", "lost call", "usage", "state", "retract", "ask", "approve")
        script: list[Action] = []
        for number, kind in enumerate(self._rng.choices(kinds, k=self._rng.randint(0, 4))):
            name = f"{self._tasks}.{number}.{self._rng.randrange(10**6)}"
            match kind:
                case "say":
                    script += self._speech(name, alone)
                case "call":
                    script += [("call", name), *self._speech(f"{name}+", alone), ("answer", name)]
                case "call later":
                    script.append(("call", name))
                    unanswered.append(name)
                case "lost call":
                    script.append(("call", name))
                    self.never_answered.add(name)
                case "retract":
                    script += [("text", name, "half"), ("retract", name)]
                case _:
                    script.append((kind, name))
        return script

    def _speech(self, name: str, alone: bool) -> list[Action]:
        """Pieces of text and of reasoning. Only a task that nothing runs beside speaks without a key."""
        key = None if alone and self._rng.random() < 0.4 else name
        pieces = [
            (kind, key, f"{name}/{n} ") for n, kind in enumerate(self._rng.choices(("text", "think"), (3, 1), k=3))
        ]
        closing: list[Action] = [("close", key)] if key and self._rng.random() < 0.8 else []
        return [*pieces[: self._rng.randint(1, 3)], *closing]


# -- one attempt at it -------------------------------------------------------------------------------------------------


def moments(
    graph: Graph, durable: Durable, rng: random.Random, namespace: str = "", path: Path = ()
) -> Iterator[Moment]:
    """What an attempt does from these checkpoints on."""
    reached = durable.get(namespace, Reached(0))
    for step, tasks in enumerate(graph, 1):
        if step > reached.step:
            kept = reached.finished if step == reached.step + 1 else frozenset[str]()
            running = [_run(task, durable, rng, namespace, path, step, kept) for task in tasks if task.name not in kept]
            yield from _interleaved(running, rng)
            yield Stepped(namespace, step)


def _run(
    task: Task, durable: Durable, rng: random.Random, namespace: str, path: Path, step: int, kept: Collection[str]
) -> Generator[Moment]:
    here: dict[str, Any] = {"node": task.name, "task": task.name, "step": step}
    yield from (Said([*path, here], action) for action in task.before)
    for number, graph in enumerate(task.graphs):
        call = {"call": str(number)} if number else {}
        yield from moments(graph, durable, rng, _inside(namespace, task, number), [*path, here | call])
    for called in task.calls:
        if called.name not in kept:
            there = [*path, here, {"node": called.name, "task": called.name, "step": 0}]
            yield from (Said(there, action) for action in called.before)
            yield Finished(namespace, step, called.name)
    yield from (Said([*path, here], action) for action in task.after)
    yield Finished(namespace, step, task.name)


def _interleaved(running: list[Generator[Moment]], rng: random.Random) -> Iterator[Moment]:
    while running:
        one = rng.choice(running)
        try:
            yield next(one)
        except StopIteration:
            running.remove(one)


def checkpoints(durable: Durable, past: Sequence[Moment], rng: random.Random) -> Durable:
    """Any that may be stored after these moments: they may lag behind, as asynchronous ones do."""
    found: Durable = {}
    for namespace in {*durable, *(m.namespace for m in past if isinstance(m, Stepped | Finished))}:
        before = durable.get(namespace, Reached(0))
        steps = [m.step for m in past if isinstance(m, Stepped) and m.namespace == namespace]
        step = rng.choice([before.step, *steps, *steps[-1:] * 3])
        results = {m.task for m in past if isinstance(m, Finished) and (m.namespace, m.step) == (namespace, step + 1)}
        kept = {task for task in results if rng.random() < 0.7} | (before.finished if step == before.step else set())
        found[namespace] = Reached(step, frozenset(kept))
    return found


def without_lost_graphs(durable: Durable, program: Graph) -> Durable:
    """Without graphs within tasks that start anew: those then have other ids, and no checkpoints."""
    kept: Durable = {}
    for namespace, parent, step in _namespaces(program):
        around = kept.get(parent, Reached(0))
        if namespace in durable and (not namespace or (parent in kept and step <= around.step + 1)):
            kept[namespace] = durable[namespace]
    return kept


def _namespaces(graph: Graph, namespace: str = "") -> Iterator[tuple[str, str, int]]:
    """Each graph's, with that of the graph around it and the step there; outer ones first."""
    if not namespace:
        yield "", "", 0
    for step, tasks in enumerate(graph, 1):
        for task in tasks:
            for number, inner in enumerate(task.graphs):
                there = _inside(namespace, task, number)
                yield there, namespace, step
                yield from _namespaces(inner, there)


def _inside(namespace: str, task: Task, number: int) -> str:
    return f"{namespace}{'|' if namespace else ''}{task.name}:{task.name}" + (f"|{number}" if number else "")
