"""What is to be said of workers and queues: facts in, findings out."""

from __future__ import annotations

from collections.abc import Sequence

from outlast.shared.domain.findings import Finding, error, ok, warning
from outlast.shared.store.diagnosis import OverdueLeases
from outlast.shared.store.overview import COUNTED_MOST, Overview, WorkerState

from .wording import counted, lasted

OLD_SECONDS = 60.0
NAMED = 5
"""No more workers than these are named in one sentence."""


def judge_workers(seen: Overview, *, version: str) -> list[Finding]:
    alive = [worker for worker in seen.workers if worker.alive]
    silent = [worker for worker in seen.workers if not worker.alive]
    others = [worker for worker in alive if worker.version != version]
    found: list[Finding] = []
    if silent:
        for_seconds = lasted(max(worker.seen_seconds for worker in silent))
        said = f"{_names(silent)} of {counted(len(seen.workers), 'worker')} {_is(silent)} silent, for up to "
        fix = "Look at their logs and start others: outlast worker. They are forgotten a minute after their last word."
        found.append(warning("workers", f"{said}{for_seconds}: killed, stopped or cut off.", fix))
    if others:
        versions = ", ".join(sorted({worker.version for worker in others}))
        said = f"{_names(others)} {_is(others)} of version {versions}; this is {version}."
        found.append(warning("workers", said, "Restart them with this version, one after another."))
    if not alive:
        left = seen.queued + seen.running
        said = "No worker is alive" + (f", and {counted(left, 'run')} cannot go on." if left else ".")
        found.append((error if left else warning)("workers", said, "outlast worker"))
    if found:
        return found
    slots, running = sum(worker.slots for worker in alive), sum(worker.running for worker in alive)
    return [ok("workers", f"{counted(len(alive), 'worker')} with {running:,} of {slots:,} slots in use.")]


def judge_queues(seen: Overview) -> list[Finding]:
    alive = [worker for worker in seen.workers if worker.alive]
    found: list[Finding] = []
    for name, queue in seen.queues.items():
        if not queue.ready:
            continue
        serving = [worker for worker in alive if name in worker.queues]
        many = f"{queue.ready:,}{'+' if queue.ready >= COUNTED_MOST else ''}"
        runs = f"{many} ready {'run' if queue.ready == 1 else 'runs'}, the oldest for {lasted(queue.oldest_seconds)}"
        if alive and not serving:
            fix = f"OUTLAST_QUEUES={name} outlast worker (or add the queue to a worker's OUTLAST_QUEUES)"
            found.append(error("queues", f"No living worker serves the queue {name}: {runs}.", fix))
        elif serving and queue.oldest_seconds > OLD_SECONDS:
            found.append(warning("queues", f"The queue {name} falls behind: {runs}.", _more_slots(serving)))
    return found or [
        ok("queues", f"Nothing waits that could not be taken; {counted(seen.running, 'run')} in progress.")
    ]


def _more_slots(serving: Sequence[WorkerState]) -> str:
    if sum(worker.running for worker in serving) < sum(worker.slots for worker in serving):
        return (
            "Its workers have free slots: look at OUTLAST_MAX_RUNNING_PER_PRINCIPAL, OUTLAST_MAX_RUNNING_PER_AGENT "
            "and the workers' logs."
        )
    return "Start more workers: outlast worker; or raise OUTLAST_CONCURRENCY, where agents mostly wait."


def judge_leases(facts: OverdueLeases) -> list[Finding]:
    if not facts.runs:
        return [ok("leases", "No run is held by a lease that has ended.")]
    seen = f"{counted(facts.runs, 'run')} in progress with a lease that ended up to {lasted(facts.seconds)} ago: "
    fix = "Start or look at an API replica or a worker: each sweeps (its log says sweep.missed when it cannot)."
    return [error("leases", f"{seen}nobody sweeps.", fix)]


def _names(workers: Sequence[WorkerState]) -> str:
    named = ", ".join(f"{worker.host}:{worker.pid}" for worker in workers[:NAMED])
    return named + (f" and {len(workers) - NAMED:,} more" if len(workers) > NAMED else "")


def _is(workers: Sequence[WorkerState]) -> str:
    return "is" if len(workers) == 1 else "are"
