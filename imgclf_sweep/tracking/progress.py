"""How far a sweep has come, gathered from what a tracker hears, and said in words. Pure: no terminal, no clock of its own."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from ..space import Value
from ..text import printable
from ..trial import Measurement, Outcome, State, Suggestion
from .protocol import SweepInfo, TimeLeft


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
        if outcome.state is not State.COMPLETE or outcome.value is None:
            return False
        if not self.info.sweep.objective.better(outcome.value, self.best[1].value if self.best else None):
            return False
        self.best = suggestion, outcome
        return True


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


def time_left(left: TimeLeft) -> str:
    """In words: `about 2 h 10 min to 2 h 50 min left`, and where the run has an end, how far that is."""
    text = "time left not known yet" if left.trials is None else f"{_range(*left.trials)} left"
    if left.run is None:
        return text
    if left.run <= 0:
        return f"{text}; the time is up"
    return f"{text}; {duration(left.run)} until {left.until or 'the time is up'}"


def _range(low: float, high: float) -> str:
    """From `low` rounded down to `high` rounded up, to a step that fits the size of `high`."""
    step = next(step for least, step in ((36000, 1800), (3600, 600), (600, 60), (60, 10), (0, 1)) if high >= least)
    a, b = math.floor(low / step) * step, math.ceil(high / step) * step
    if a == 0:
        return f"up to {_whole(b)}"
    return f"about {_whole(b)}" if a == b else f"about {_whole(a)} to {_whole(b)}"


def _whole(seconds: int) -> str:
    """Seconds in words without parts that are 0: `40 s`, `1 min 20 s`, `2 h`."""
    hours, minutes = divmod(seconds // 60, 60)
    parts = ((hours, "h"), (minutes, "min"), (0 if hours else seconds % 60, "s"))
    return " ".join(f"{n} {unit}" for n, unit in parts if n) or "0 s"


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
