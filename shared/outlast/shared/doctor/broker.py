"""What is to be said of the broker: facts in, findings out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from outlast.shared.domain.findings import Finding, error, ok, warning

from .wording import counted

OLDEST_SUPPORTED = (6, 0)
SLOW_SECONDS = 0.1
NEARLY_FULL = 0.9
MANY_BELLS = 10_000


@dataclass(frozen=True, slots=True)
class BrokerFacts:
    name: str
    """Redis or Valkey."""
    version: str | None
    """None where the server does not say."""
    seconds: float
    """Of a round trip."""
    policy: str | None
    """What is evicted when the memory is full; None where the server does not say."""
    used_bytes: int
    most_bytes: int
    """0: as much as there is."""
    is_replica: bool
    clock_ahead_seconds: float
    """Of this machine's; a round trip is taken to be as long there as back."""
    bells: Mapping[str, int]
    """Doorbells that nobody has heard yet, by queue."""


def judge_broker(facts: BrokerFacts, *, place: str) -> list[Finding]:
    which = f"{facts.name} {facts.version}" if facts.version else "The broker"
    said = f"{which} at {place} answers in {facts.seconds * 1000:.1f} ms."
    found: list[Finding] = []
    if facts.seconds > SLOW_SECONDS:
        found.append(warning("broker", said, "Run the broker in the network of API and workers."))
    if facts.version and _numbers(facts.version) < OLDEST_SUPPORTED:
        oldest = ".".join(map(str, OLDEST_SUPPORTED))
        fix = f"Upgrade to Redis {oldest} or newer, or to Valkey."
        found.append(error("broker", f"{which} at {place} is older than {oldest}.", fix))
    if facts.is_replica:
        seen = f"{place} is a replica: doorbells cannot be rung there."
        found.append(error("broker", seen, "Let REDIS_URL name the primary."))
    if facts.policy not in (None, "noeviction"):
        seen = f"When its memory is full the broker evicts keys ({facts.policy}), and with them doorbells."
        fix = "CONFIG SET maxmemory-policy noeviction (and the same in its configuration)"
        found.append(warning("broker", seen, fix))
    if facts.most_bytes and facts.used_bytes >= NEARLY_FULL * facts.most_bytes:
        seen = f"The broker uses {facts.used_bytes:,} of {facts.most_bytes:,} bytes: soon it takes no doorbell."
        found.append(warning("broker", seen, "CONFIG SET maxmemory with a larger number, or a broker of its own."))
    return [*(found or [ok("broker", said)]), *_judge_bells(facts.bells)]


def _judge_bells(bells: Mapping[str, int]) -> list[Finding]:
    many = {queue: count for queue, count in bells.items() if count > MANY_BELLS}
    if many:
        seen = "; ".join(f"{counted(count, 'doorbell')} in queue {queue}" for queue, count in many.items())
        fix = "Start a worker for the queue (OUTLAST_QUEUES); doorbells may be deleted, runs are not lost by it."
        return [warning("doorbells", f"Nobody hears them: {seen}.", fix)]
    return [ok("doorbells", f"{counted(sum(bells.values()), 'doorbell')} unheard.")]


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".")[:2] if part.isdigit())
