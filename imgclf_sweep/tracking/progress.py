"""How far a sweep has come, gathered from what a tracker hears, and said in words. Pure: no terminal, no clock of its own."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from ..space import Value
from ..text import printable
from ..trial import Measurement, Outcome, State, Suggestion
from .protocol import SweepInfo

SPREAD = 1.3  # standard deviations either side of the estimated time left: about four in five


@dataclass
class Running:
    """An attempt that is going on. `value` is the objective of its last epoch; `started` a time in seconds."""

    suggestion: Suggestion
    started: float
    epoch: int = 0
    value: float | None = None

    @property
    def part(self) -> float:
        """How much of its epochs are done, 0 to 1."""
        planned = self.suggestion.epochs - self.suggestion.initial_epoch
        return min(max(self.epoch - self.suggestion.initial_epoch, 0) / planned, 1.0) if planned > 0 else 0.0


@dataclass
class Progress:
    """The state of a sweep, as of the last event heard. Times are seconds on whatever clock the caller uses."""

    info: SweepInfo
    began: float
    counts: dict[State, int] = field(default_factory=lambda: dict.fromkeys(ENDS, 0))
    running: dict[int, Running] = field(default_factory=dict)
    best: tuple[Suggestion, Outcome] | None = None
    durations: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        for trial in self.info.history:
            if trial.state.finished:
                self.ended(trial.suggestion, trial.outcome)

    @property
    def done(self) -> int:
        return sum(self.counts.values())

    def started(self, suggestion: Suggestion, now: float) -> None:
        self.running[suggestion.number] = Running(suggestion, now, suggestion.initial_epoch)

    def measured(self, suggestion: Suggestion, measurement: Measurement) -> None:
        running = self.running.get(suggestion.number)
        if running:
            running.epoch = measurement.epoch
            running.value = measurement.metrics.get(self.info.sweep.objective.metric, running.value)

    def interrupted(self, suggestion: Suggestion) -> None:
        self.running.pop(suggestion.number, None)

    def ended(self, suggestion: Suggestion, outcome: Outcome) -> bool:
        """Returns whether this trial is the best so far. Only a complete one can be."""
        self.running.pop(suggestion.number, None)
        self.counts[outcome.state] += 1
        self.durations.append(outcome.seconds)
        if outcome.state is not State.COMPLETE or outcome.value is None:
            return False
        if not self.info.sweep.objective.better(outcome.value, self.best[1].value if self.best else None):
            return False
        self.best = suggestion, outcome
        return True

    def left(self) -> tuple[float, float] | None:
        """The seconds left as a range, from how long trials took so far; None before the first has ended."""
        if not self.durations:
            return None
        trials = max(self.info.trials - self.done, 0) - sum(r.part for r in self.running.values())
        count = len(self.durations)
        mean = sum(self.durations) / count
        deviation = math.sqrt(sum((d - mean) ** 2 for d in self.durations) / max(count - 1, 1))
        if count == 1:
            deviation = mean / 2  # one duration says little
        trials = max(trials, 0.0)
        error = SPREAD * deviation * math.sqrt(trials + trials**2 / count)  # of the sum, and of the mean it rests on
        workers = max(min(self.info.workers, math.ceil(trials)), 1)
        return max(trials * mean - error, 0.0) / workers, (trials * mean + error) / workers


ENDS = (State.COMPLETE, State.PRUNED, State.FAILED)


def duration(seconds: float) -> str:
    """Seconds in words: `8.3 s`, `3 min 20 s`, `2 h 05 min`."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def time_left(left: tuple[float, float] | None) -> str:
    """The range in words, both ends in one unit: `3-5 min left`, `about 2 h left`."""
    if left is None:
        return "time left not known yet"
    low, high = left
    for unit, size in (("h", 3600), ("min", 60), ("s", 1)):
        if high >= 2 * size or size == 1:
            a, b = math.floor(low / size), math.ceil(high / size)
            return f"about {b} {unit} left" if b - a <= 1 else f"{a}-{b} {unit} left"
    raise AssertionError


def short(value: Value) -> str:
    """A parameter's value in few characters, safe on a terminal."""
    if isinstance(value, tuple):
        return "-".join(short(v) for v in value)
    if isinstance(value, float):
        return f"{value:.4g}"
    return printable(value)


def params_text(params: Mapping[str, Value], width: int | None = None) -> str:
    """`filters=32 dropout=0.31`, cut with `...` where longer than `width`."""
    text = " ".join(f"{printable(name)}={short(value)}" for name, value in params.items()) or "(no parameters)"
    return text if width is None or len(text) <= width else text[: max(width - 3, 0)] + "..."


def outcome_text(suggestion: Suggestion, outcome: Outcome, metric: str) -> str:
    """What a trial came to: its value and epoch, or why it failed. Epochs count from those of the parent it went on from."""
    if outcome.state is State.FAILED:
        why = ": ".join(printable(w) for w in (outcome.kind, outcome.reason) if w)
        return why or "no reason known"
    if outcome.value is None:
        return "nothing measured"
    return f"{printable(metric)} {outcome.value:.4f} (epoch {outcome.epoch} of {suggestion.initial_epoch + outcome.epochs})"


def counts_text(counts: Mapping[State, int]) -> str:
    """`17 complete, 2 pruned, 1 failed`, leaving out what did not happen."""
    return ", ".join(f"{n} {state.value.lower()}" for state, n in counts.items() if n) or "none finished"
