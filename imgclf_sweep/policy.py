"""What follows from each kind of failure: one table, and the breaker that stops a sweep in which everything fails alike.

PREEMPTED and ENVIRONMENT are no failures of the trial and have no row: it goes back to the queue however often, and the second
pauses the sweep.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field

from .record.rows import Attempt
from .record.write import OWNER_GONE
from .trial import Kind, Outcome


@dataclass(frozen=True)
class Rule:
    """attempts: as often a trial may end so before it is FAILED; if_shared: but only once if it had its device for itself.
    alone: after so many such ends it is tried with nothing beside it.   breaks: it counts for the breaker."""

    attempts: int = 1
    if_shared: bool = False
    alone: int | None = None
    breaks: bool = False


RULES = {
    Kind.LOST: Rule(attempts=3, alone=2, breaks=True),  # alone: a third time it takes no other trial along
    Kind.OOM_HOST: Rule(attempts=2, alone=1),
    Kind.OUT_OF_MEMORY: Rule(attempts=2, if_shared=True, alone=1),
    Kind.DIVERGED: Rule(),
    Kind.TIMEOUT: Rule(),
    Kind.STALLED: Rule(attempts=2),
    Kind.BUILD: Rule(breaks=True),
    Kind.ERROR: Rule(breaks=True),
    Kind.CRASH: Rule(attempts=2, breaks=True),
}
MOST = 3  # attempts of one trial that may end badly, whatever mixture of kinds
ALIKE = 3  # trials that fail in one and the same way before any succeeded: no other configuration will do better


def blamed(attempts: Sequence[Attempt]) -> list[Attempt]:
    """The attempts that ended through a fault. Those that went down with the whole run do not count: every trial running at
    that moment was lost with it, and none of them is to blame."""
    return [a for a in attempts if a.ending in RULES and a.reason != OWNER_GONE]


def again(kind: Kind, earlier: Sequence[Attempt], shared: bool) -> bool:
    """Whether a trial whose attempt just ended so is to be tried again.   shared: it did not have its device for itself."""
    rule, before = RULES[kind], blamed(earlier)
    if rule.if_shared and not shared:
        return False
    return sum(a.ending == kind for a in before) + 1 < rule.attempts and len(before) + 1 < MOST


def alone(earlier: Sequence[Attempt]) -> bool:
    """Whether the next attempt is to run with nothing beside it."""
    counts = Counter(Kind(a.ending) for a in blamed(earlier))
    return any(count >= (RULES[kind].alone or MOST + 1) for kind, count in counts.items())


def history(kind: Kind, reason: str, earlier: Sequence[Attempt]) -> str:
    """The reason of a trial that is given up: how each of its attempts ended, if there were several."""
    before = [str(a.reason) for a in blamed(earlier)]
    if not before or RULES[kind].attempts == 1:
        return reason
    if set(before) == {reason}:
        return f"{reason}; so did all its {len(before) + 1} attempts"
    return "; then ".join([*before, reason])


@dataclass
class Breaker:
    """Hears how trials end. It trips when the first ones all fail alike: the same exception from the same lines, say."""

    succeeded: bool
    failures: list[Outcome] = field(default_factory=list)

    def heard(self, outcome: Outcome) -> None:
        if outcome.kind is None:
            self.succeeded = True
        else:
            self.failures.append(outcome)

    @property
    def tripped(self) -> Outcome | None:
        """The first of the failures that tell the sweep to stop; None while it may go on."""
        first = self.failures[:ALIKE]
        if self.succeeded or len(first) < ALIKE or len({_likeness(o) for o in first}) > 1:
            return None
        return first[0] if first[0].kind in RULES and RULES[first[0].kind].breaks else None


def _likeness(outcome: Outcome) -> Hashable:
    """Equal for two failures with one cause: the message may name a shape or a value, the lines and the type do not."""
    if outcome.frames is None:
        return outcome.kind, outcome.reason
    lines = outcome.frames.splitlines()
    return outcome.kind, tuple(lines[:-1]), lines[-1].split(":")[0]
