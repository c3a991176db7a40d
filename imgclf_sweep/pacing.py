"""What can still finish before a run's end: which trial is begun, which goes on, when it is time to retrain, and the time left.

With no end every question is answered with yes, and nothing is computed for it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from .clock import End
from .cost import Costs
from .text import listed
from .tracking.progress import duration
from .tracking.protocol import SweepInfo, TimeLeft
from .trial import Measurement, Outcome, State, Suggestion

LOW, HIGH = 0.1, 0.9  # the range shown: four in five
SPREAD = 1.28  # the same in standard deviations of a normal distribution, for a sum of many
LIKELY = 0.75  # a trial is begun where it finishes in time with this probability
EVEN = 0.5  # and goes on with this one: stopping it has a price too
SAFE = 0.9  # retraining has the time it takes with this probability
FINISH_SECONDS = 60.0  # to start processes, prove the export, draw the pictures; digits: 21 s of an EPYC core's time
FINISH_EPOCHS = 1  # and to score the test part and the export: less than an epoch's images, without their gradients


class Pace:
    """Listens as a `Tracker` does, told of everything after it was committed.

    end: of this run.   retraining: None, or by how many times as many images as a trial's the best one is retrained on
    before the end.   seconds: of the epochs that the record knows: trial -> epoch -> seconds.
    """

    def __init__(
        self,
        end: End | None = None,
        retraining: float | None = None,
        seconds: Mapping[int, Mapping[int, float]] | None = None,
    ) -> None:
        self._end = end or End()
        self._retraining = retraining
        self._seconds = seconds or {}
        self._info: SweepInfo | None = None
        self._running: dict[int, tuple[Suggestion, float]] = {}  # and when it was last heard of
        self._waiting: dict[int, Suggestion] = {}  # begun or proposed earlier
        self._insisted: set[int] = set()
        self._best: tuple[Suggestion, Outcome] | None = None
        self._achieved = False  # whether a trial ended well in this run
        self._finished = 0

    # -- listening ---------------------------------------------------------------------------------------------------

    def opened(self, info: SweepInfo) -> None:
        self._info, self._costs = info, Costs(info.sweep.space)
        for trial in info.history:
            total = trial.seconds if trial.state.finished else None
            self._costs.learn(trial.suggestion, self._seconds.get(trial.number, {}), total)
            if trial.state.finished:
                self._count(trial.suggestion, trial.outcome)
            elif trial.state is State.RUNNING:
                self._running[trial.number] = trial.suggestion, self._end.monotonic()
            else:
                self._waiting[trial.number] = trial.suggestion

    def started(self, suggestion: Suggestion, attempt: int) -> None:
        self._waiting.pop(suggestion.number, None)
        self._hear(suggestion)

    def resumed(self, suggestion: Suggestion, measurements: Sequence[Measurement]) -> None:
        for measurement in measurements:
            self.measured(suggestion, measurement, 0.0)

    def measured(self, suggestion: Suggestion, measurement: Measurement, best: float) -> None:
        if self._info:
            self._costs.measured(suggestion, measurement)
        self._hear(suggestion)

    def ended(self, suggestion: Suggestion, outcome: Outcome) -> None:
        self._running.pop(suggestion.number, None)
        self._achieved |= outcome.state is not State.FAILED
        if self._info:
            self._costs.ended(suggestion, outcome)
            self._count(suggestion, outcome)

    def interrupted(self, suggestion: Suggestion, reason: str) -> None:
        self._running.pop(suggestion.number, None)
        self._waiting[suggestion.number] = suggestion

    def note(self, line: str) -> None:
        """Nothing to learn from."""

    def tick(self) -> None:
        """Its clocks are read when it is asked."""

    def closed(self, ending: str) -> None:
        """It may be asked afterwards."""

    def _hear(self, suggestion: Suggestion) -> None:
        self._running[suggestion.number] = suggestion, self._end.monotonic()

    def _count(self, suggestion: Suggestion, outcome: Outcome) -> None:
        assert self._info is not None
        self._finished += 1
        if outcome.state is not State.COMPLETE or outcome.value is None:
            return
        best = self._best[1].value if self._best else None
        if self._info.sweep.objective.better(outcome.value, best):
            self._best = suggestion, outcome

    # -- deciding ----------------------------------------------------------------------------------------------------

    def over(self) -> bool:
        """Whether the search has to end now."""
        left = self._end.left()
        return left is not None and left <= self._reserve()

    def fits(self, suggestion: Suggestion) -> bool:
        """Whether a trial that is begun now, or gone on with, is likely to finish in time. Yes while little is known."""
        return self._in_time(suggestion, LIKELY, running=False)

    def goes_on(self, suggestion: Suggestion) -> bool:
        """Whether a running trial is to train another epoch."""
        if self._in_time(suggestion, EVEN, running=True):
            return True
        return suggestion.number in self._insisted and not self._achieved and self._next_in_time(suggestion, 0.0)

    def insist(self, waiting: Sequence[Suggestion]) -> Suggestion | None:
        """One to train as far as it gets, where nothing can finish in this run and nothing has: or no run would get further."""
        if self._achieved or any(number not in self._insisted for number in self._running):
            return None
        possible = [s for s in waiting if self._next_in_time(s, self._costs.overhead(EVEN))]
        if not possible:
            return None
        chosen = min(possible, key=lambda s: (self._costs.left(s, EVEN) or 0.0, s.number))
        self._insisted.add(chosen.number)
        return chosen

    def _in_time(self, suggestion: Suggestion, q: float, running: bool) -> bool:
        left = self._end.left()
        if left is None or self._info is None:
            return True
        if not self._costs.informed:
            return self._next_in_time(suggestion, 0.0)
        needed = self._costs.left(suggestion, q, running)
        return needed is None or needed + max(self._reserve(), self._retrain(suggestion, suggestion.epochs)) <= left

    def _next_in_time(self, suggestion: Suggestion, before: float) -> bool:
        left, epoch = self._end.left(), self._costs.epoch(suggestion, EVEN)
        return left is None or epoch is None or before + epoch + self._reserve() <= left

    def _reserve(self) -> float:
        """What retraining the best trial of now takes."""
        if self._best is None:
            return 0.0
        suggestion, outcome = self._best
        return self._retrain(suggestion, outcome.epoch or suggestion.epochs)

    def _retrain(self, suggestion: Suggestion, epochs: int) -> float:
        if self._retraining is None or self._info is None:
            return 0.0
        epoch = self._costs.epoch(suggestion, SAFE) or 0.0
        return (epochs + FINISH_EPOCHS) * epoch * self._retraining + self._costs.overhead(SAFE) + FINISH_SECONDS

    # -- saying ------------------------------------------------------------------------------------------------------

    def stopped(self, suggestion: Suggestion) -> str:
        """Why a trial that was told to interrupt was, and how far it came."""
        return f"no time is left {self._far(suggestion)}" if self._end.left() is not None else "stopped to go on later"

    def closing(self, waiting: Sequence[Suggestion]) -> str:
        """Why the search is over for want of time, and which trials wait for the next run, in a line."""
        left = self._end.left() or 0.0
        until = f" until {self._end.words()}" if self._end.words() else ""
        more = "another trial" if self._retraining is None else "another trial and retraining"
        why = "time is up" if self.over() else f"time is up: {duration(left)}{until} is too short for {more}"
        if self._retraining is not None and left > 0 and self.over():
            why = f"time is up for the search: {duration(left)}{until} is kept for retraining"
        begun = [f"trial {s.number} stopped {self._far(s)}" for s in waiting if self._costs.done(s)]
        unbegun = [str(s.number) for s in waiting if not self._costs.done(s)]
        if unbegun:
            begun.append(f"trial{'s' if len(unbegun) > 1 else ''} {listed(unbegun)} not begun")
        return "; ".join([why, *begun])

    def _far(self, suggestion: Suggestion) -> str:
        done = suggestion.initial_epoch + self._costs.done(suggestion)
        return f"after epoch {done} of {suggestion.epochs}"

    def left(self) -> TimeLeft:
        """The time that the trials still to do will take, if nothing ends them, and the time until the end."""
        return TimeLeft(self._trials_left(), self._end.left(), self._end.words())

    def _trials_left(self) -> tuple[float, float] | None:
        if self._info is None:
            return None
        begun = [*((s, self._end.monotonic() - heard) for s, heard in self._running.values())]
        ranges = [self._range(s, elapsed) for s, elapsed in begun]
        running = len(ranges)
        ranges += [self._range(s, None) for s in self._waiting.values()]
        new = max(self._info.trials - self._finished - len(ranges), 0)
        if not ranges and not new:
            return 0.0, 0.0
        known = [each for each in ranges if each is not None]
        typical = self._typical()
        if len(known) < len(ranges) or typical is None:
            return None
        mean, deviation, count = typical
        middle = sum(low + high for low, high in known) / 2 + new * mean
        spread = sum(((high - low) / 2) ** 2 for low, high in known)
        error = math.sqrt(spread + (SPREAD * deviation) ** 2 * (new + new**2 / count))  # of a sum, and of its mean
        workers = max(min(self._info.workers, running + len(self._waiting) + new), 1)
        longest = [max((each[end] for each in known[:running]), default=0.0) for end in (0, 1)]
        return max((middle - error) / workers, longest[0], 0.0), max((middle + error) / workers, longest[1])

    def _range(self, suggestion: Suggestion, elapsed: float | None) -> tuple[float, float] | None:
        """Low and high for one trial.  elapsed: seconds since a running one was heard of."""
        low, high = (self._costs.left(suggestion, q, elapsed is not None) for q in (LOW, HIGH))
        if low is None or high is None:
            return None
        return max(low - (elapsed or 0.0), 0.0), max(high - (elapsed or 0.0), 0.0)

    def _typical(self) -> tuple[float, float, int] | None:
        """Mean and standard deviation of what a new trial takes, and from how many that is known: those that ended, pruned
        and failed ones too; before any has, what one of those under way takes as a whole."""
        totals = self._costs.totals
        if not totals:
            begun = [s for s, _ in self._running.values()] + list(self._waiting.values())
            each = [(self._costs.epoch(s, EVEN) or 0.0) * (s.epochs - s.initial_epoch) for s in begun]
            totals = [sum(each) / len(each)] if each else []
        if not totals:
            return None
        mean = sum(totals) / len(totals)
        if len(totals) == 1:
            return mean, mean / 2, 1  # one duration says little
        return mean, math.sqrt(sum((t - mean) ** 2 for t in totals) / (len(totals) - 1)), len(totals)
