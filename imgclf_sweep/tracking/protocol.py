"""The rules every listener keeps, and the composite that is one more of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from ..sweep import Sweep
from ..trial import Measurement, Outcome, Suggestion, Trial


@dataclass(frozen=True)
class SweepInfo:
    """What a tracker is told first: the sweep, its name, the number of trials aimed at, and the recorded trials so far.

    workers: trials at a time in worker processes; 0: one at a time in this process.   lanes: of them in each worker.
    """

    name: str
    sweep: Sweep
    trials: int
    history: Sequence[Trial]
    workers: int = 1
    lanes: int = 1


@dataclass(frozen=True)
class TimeLeft:
    """trials: the seconds that the trials still to do will take, as a range; None while nothing is known.
    run: the seconds until the end given for the run, if one is.   until: the time of day of that end, where it has one."""

    trials: tuple[float, float] | None = None
    run: float | None = None
    until: str = ""


class Tracker(Protocol):
    """Hears everything that was committed to the record, after it was committed, from one thread.

    Order: `opened`, then for each attempt of a trial `started`, perhaps `resumed`, `measured` an epoch, and one of `ended` (once
    a trial, ever) or `interrupted` (the attempt is over, the trial will be started again); `tick` at any time; `closed` last,
    always.
    A listener that was not there for a finished trial (we were killed) finds it in `opened`'s history and makes up for it.
    """

    def opened(self, info: SweepInfo) -> None: ...

    def started(self, suggestion: Suggestion, attempt: int) -> None:
        """An attempt (from 1) of this trial begins; it will measure the epochs after `suggestion.initial_epoch`."""
        ...

    def resumed(self, suggestion: Suggestion, measurements: Sequence[Measurement]) -> None:
        """The attempt goes on from a checkpoint: these epochs, at least one, count as its own; it measures those after them."""
        ...

    def measured(self, suggestion: Suggestion, measurement: Measurement, best: float) -> None:
        """An epoch ended; `best` is the best objective of this attempt so far, resumed epochs and this one included."""
        ...

    def ended(self, suggestion: Suggestion, outcome: Outcome) -> None: ...

    def interrupted(self, suggestion: Suggestion, reason: str) -> None: ...

    def note(self, line: str) -> None:
        """Something a user should read once, on one line."""
        ...

    def tick(self) -> None:
        """Called several times a second while waiting, for clocks on a screen."""
        ...

    def closed(self, ending: str) -> None:
        """The run is over; `ending` says in a line how (finished, stopped, how to continue)."""
        ...


class Trackers:
    """Several trackers as one, told in order."""

    def __init__(self, members: Sequence[Tracker]) -> None:
        self._members = list(members)

    def opened(self, info: SweepInfo) -> None:
        for member in self._members:
            member.opened(info)

    def started(self, suggestion: Suggestion, attempt: int) -> None:
        for member in self._members:
            member.started(suggestion, attempt)

    def resumed(self, suggestion: Suggestion, measurements: Sequence[Measurement]) -> None:
        for member in self._members:
            member.resumed(suggestion, measurements)

    def measured(self, suggestion: Suggestion, measurement: Measurement, best: float) -> None:
        for member in self._members:
            member.measured(suggestion, measurement, best)

    def ended(self, suggestion: Suggestion, outcome: Outcome) -> None:
        for member in self._members:
            member.ended(suggestion, outcome)

    def interrupted(self, suggestion: Suggestion, reason: str) -> None:
        for member in self._members:
            member.interrupted(suggestion, reason)

    def note(self, line: str) -> None:
        for member in self._members:
            member.note(line)

    def tick(self) -> None:
        for member in self._members:
            member.tick()

    def closed(self, ending: str) -> None:
        for member in self._members:
            member.closed(ending)
