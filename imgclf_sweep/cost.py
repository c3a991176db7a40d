"""What training costs in seconds, learned from the epochs that were measured and told at any quantile.

How long an epoch takes is learned apart from how good it is, in its logarithm, as in Snoek, Larochelle and Adams, "Practical
Bayesian Optimization of Machine Learning Algorithms" (2012), section 3.2: it is positive and spans orders of magnitude. What
multiplies the work (filters, layers, image size) adds up there, so a ridge regression on the configuration does, with Huber's
weights (1964) against trials that the machine was too busy for. Which of several strengths, or the plain median, is decided
by the residuals that each known trial would have had if it were not known (Allen's PRESS, 1974); their quantiles also
widen a prediction, as in the jackknife of Barber, Candès, Ramdas and Tibshirani, "Predictive inference with the
jackknife+" (2021).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from .parameters import Choice, Fixed, Float, Int, Parameter
from .space import Params, SearchSpace, Value, same
from .trial import Measurement, Outcome, Suggestion

FEWEST = 5  # trials to fit a regression to
MOST = 500  # and at most, the latest: of those 5,000 that a record may hold, fitted between two epochs
RELEARN = (
    20  # times as many trials as news of them: sooner another fit tells hardly anything, and takes 50 ms of 500 trials
)
STRENGTHS = (0.03, 0.3, 3.0)  # of the ridge, for columns within 0 and 1
HUBER = 1.345  # standard deviations; 95 % efficient where there are no outliers (Huber 1981)
DOUBT = math.log(2)  # two more residuals, -DOUBT and DOUBT: what few trials tell may be wrong by a factor of two
WIDE = 4.0  # a range of positive numbers that spans such a factor is taken by its logarithm
TINY = 1e-6  # seconds; an epoch that took none by a coarse clock has a logarithm all the same


@dataclass
class Timing:
    """What is known of one trial: the seconds of each epoch it measured, by epoch; and in all, once it has ended."""

    params: Params
    epochs: dict[int, float] = field(default_factory=dict)
    total: float | None = None

    @property
    def settled(self) -> bool:
        """Whether an epoch after the first is known: the first also compiles the model."""
        return len(self.epochs) > 1

    @property
    def usual(self) -> float:
        """The seconds of one epoch: the median of all but the first, or of that if there is no other."""
        seconds = [self.epochs[epoch] for epoch in sorted(self.epochs)]
        return max(float(np.median(seconds[1:] or seconds)), TINY)

    @property
    def spent(self) -> float:
        """What a trial that has ended took besides."""
        return max((self.total or 0.0) - self.usual * len(self.epochs), 0.0)


class Costs:
    """Learns from measurements as they come and predicts what is left. All seconds.

    space: of the configurations; one outside it (a known one, or from before a change) is predicted from what it shares.
    A prediction at quantile q in (0, 1) is not exceeded, as far as the past tells, with probability q. It is None while no
    epoch has been measured.
    """

    def __init__(self, space: SearchSpace) -> None:
        self._encoding = Encoding(space)
        self._timings: dict[int, Timing] = {}
        self._ended: list[float] = []
        self._learned: Known | None = None
        self._news = 0  # what was heard since

    def learn(self, suggestion: Suggestion, seconds: Mapping[int, float], total: float | None = None) -> None:
        """Take over what a record knows of a trial.  seconds: by epoch.   total: of a finished one."""
        timing = self._timings.setdefault(suggestion.number, Timing(suggestion.params))
        timing.epochs.update(seconds)
        if total is not None:
            timing.total = total
            self._ended.append(total)
        self._news += 1

    def measured(self, suggestion: Suggestion, measurement: Measurement) -> None:
        timing = self._timings.setdefault(suggestion.number, Timing(suggestion.params))
        for epoch in [epoch for epoch in timing.epochs if epoch > measurement.epoch]:
            del timing.epochs[epoch]  # an earlier attempt's, whose checkpoint was lost
        timing.epochs[measurement.epoch] = measurement.seconds
        if len(timing.epochs) <= 2:  # the later ones say more of this trial, but little of any other
            self._news += 1

    def ended(self, suggestion: Suggestion, outcome: Outcome) -> None:
        self.learn(suggestion, {}, outcome.seconds)

    @property
    def totals(self) -> Sequence[float]:
        """What the finished trials took, pruned and failed ones included."""
        return self._ended

    @property
    def informed(self) -> bool:
        """Whether more is known than first epochs of trials under way, which say too much: they also compile the model."""
        known = self._known()
        return known is not None and (known.settled or bool(known.spent))

    def done(self, suggestion: Suggestion) -> int:
        """How many epochs of it are measured."""
        timing = self._timings.get(suggestion.number)
        return len(timing.epochs) if timing else 0

    def epoch(self, suggestion: Suggestion, q: float) -> float | None:
        """One epoch of this trial: from its own if there is more than the first, else from all that is known."""
        timing, known = self._timings.get(suggestion.number), self._known()
        if known is None:
            return None
        if timing is not None and timing.epochs and (timing.settled or not known.settled):
            return timing.usual * math.exp(_quantile(known.waver, q))
        return known.model.predict(self._encoding.row(suggestion.params), q)

    def overhead(self, q: float) -> float:
        """What a trial takes besides its epochs: building and compiling, the slower first epoch, checkpoints. 0 if unknown."""
        known = self._known()
        return float(np.quantile(known.spent, q)) if known and known.spent else 0.0

    def left(self, suggestion: Suggestion, q: float, running: bool = False) -> float | None:
        """Until this trial has trained all its epochs, from its last measured epoch on.  running: not begun anew."""
        done, each = self.done(suggestion), self.epoch(suggestion, q)
        if each is None:
            return None
        epochs = max(suggestion.epochs - suggestion.initial_epoch - done, 0)
        return epochs * each + (0.0 if running and done else self.overhead(q))

    def _known(self) -> Known | None:
        """What there is to learn from the trials with more than a first epoch or, while there are none, from all with one."""
        if self._learned is None or self._news * RELEARN >= max(len(self._timings), RELEARN):
            self._news = 0
            measured = [t for t in self._timings.values() if t.epochs]
            timings = ([t for t in measured if t.settled] or measured)[-MOST:]
            if timings:
                rows = np.asarray([self._encoding.row(t.params) for t in timings])
                model = fit(rows, np.log([t.usual for t in timings]))
                spent = [t.spent for t in timings if t.total is not None]
                self._learned = Known(model, _waver(timings), spent, timings[0].settled)
        return self._learned


@dataclass(frozen=True)
class Known:
    """The model of an epoch's seconds; by how much epochs of one trial differ from its usual one, as differences of logarithms,
    (N,); what trials took besides their epochs; and whether first epochs were left out."""

    model: Model
    waver: np.ndarray
    spent: list[float]
    settled: bool


def _waver(timings: Sequence[Timing]) -> np.ndarray:
    found = [-DOUBT, DOUBT]
    for timing in timings:
        later, usual = [timing.epochs[epoch] for epoch in sorted(timing.epochs)][1:], timing.usual
        found += [math.log(max(seconds, TINY) / usual) for seconds in later]
    return np.asarray(found)


@dataclass(frozen=True)
class Model:
    """log seconds = intercept + (row - centre) @ slopes, give or take `residuals`."""

    intercept: float
    centre: np.ndarray
    slopes: np.ndarray
    residuals: np.ndarray

    def predict(self, row: Sequence[float], q: float) -> float:
        middle = self.intercept + float((np.asarray(row) - self.centre) @ self.slopes)
        return math.exp(middle + _quantile(np.append(self.residuals, [-DOUBT, DOUBT]), q))


def fit(rows: np.ndarray, logs: np.ndarray) -> Model:
    """The model of N > 0 trials whose left-out residuals are the smallest on average: the median, or one of the regressions.

    rows: (N, D) within about 0 and 1.   logs: (N,), of seconds.
    """
    nothing = np.zeros(rows.shape[1])
    others = [np.delete(logs, i) for i in range(len(logs))] if len(logs) > 1 else []
    left_out = np.asarray([log - np.median(rest) for log, rest in zip(logs, others, strict=False)])
    best = Model(float(np.median(logs)), nothing, nothing, left_out)
    if len(logs) >= FEWEST and rows.shape[1]:
        for strength in STRENGTHS:
            model = _ridge(rows, logs, strength)
            if np.abs(model.residuals).mean() < np.abs(best.residuals).mean():
                best = model
    return best


def _ridge(rows: np.ndarray, logs: np.ndarray, strength: float) -> Model:
    """Ridge regression, reweighted three times so that what lies far off counts less. The intercept is not shrunk."""
    centre = rows.mean(axis=0)
    x = np.column_stack([np.ones(len(rows)), rows - centre])
    penalty = np.diag([0.0] + [strength] * rows.shape[1])
    weights = np.ones(len(rows))
    for _ in range(3):
        inverse = np.linalg.inv(x.T @ (weights[:, None] * x) + penalty)
        coefficients = inverse @ (x.T @ (weights * logs))
        off = logs - x @ coefficients
        leverage = np.minimum(weights * np.einsum("ij,jk,ik->i", x, inverse, x), 1 - 1e-9)
        scale = max(1.4826 * float(np.median(np.abs(off))), 1e-12)  # of a normal distribution with that median
        weights = np.minimum(1.0, HUBER * scale / np.maximum(np.abs(off), 1e-12))
    return Model(float(coefficients[0]), centre, coefficients[1:], off / (1 - leverage))


def _quantile(values: np.ndarray, q: float) -> float:
    return float(np.quantile(values, q))


class Encoding:
    """Configurations of a space as rows of numbers, each within 0 and 1 inside the space.

    A number gives itself, by its logarithm where its range is wide, and its square; any other choice one column a value; a
    parameter with a condition one more for being there. What is absent, or none of the values, gives zeros.
    """

    def __init__(self, space: SearchSpace) -> None:
        self._parameters = {name: p for name, p in space.items() if not isinstance(p, Fixed)}
        self._ranges = {name: _numbers(p) for name, p in self._parameters.items()}

    def row(self, params: Mapping[str, Value]) -> list[float]:
        row: list[float] = []
        for name, parameter in self._parameters.items():
            value, present = params.get(name), name in params
            numbers = self._ranges[name]
            if numbers is not None:
                place = _place(value, *numbers) if present else 0.0
                row += [place, place**2]
            else:
                row += [float(present and same(value, choice)) for choice in parameter.values() or ()]
            if parameter.when:
                row.append(float(present))
        return row


def _numbers(parameter: Parameter) -> tuple[float, float] | None:
    """The least and the greatest value of a parameter that is a number; None for any other."""
    if isinstance(parameter, (Int, Float)):
        return float(parameter.low), float(parameter.high)
    if isinstance(parameter, Choice) and all(_is_number(choice) for choice in parameter.choices):
        choices = [float(str(choice)) for choice in parameter.choices]
        return min(choices), max(choices)
    return None


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _place(value: object, low: float, high: float) -> float:
    """Where a number lies between `low`, 0, and `high`, 1; at most as far outside again."""
    if not isinstance(value, (int, float)) or high <= low:
        return 0.0
    number = float(value)
    if low > 0 and high / low >= WIDE:
        number, low, high = math.log(max(number, TINY)), math.log(low), math.log(high)
    return min(max((number - low) / (high - low), -1.0), 2.0)
