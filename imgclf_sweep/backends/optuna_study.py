"""Our values as Optuna's: parameters as distributions, trials as frozen trials. Optuna 5.

Two encodings. `indexed` is for the study that proposes: what has a list of values is searched by its place in the list, so
that a value read back from the record is bit for bit the one proposed (Optuna computes 0.30000000000000004 where the record
holds 0.3, and the next proposal would differ). `readable` is for the study that people open.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

from ..space import Choice, Fixed, Float, Int, Parameter, SearchSpace, Value, frozen, same
from ..trial import Kind, State, Trial

DETERMINISTIC = (
    Kind.DIVERGED,
    Kind.OUT_OF_MEMORY,
    Kind.OOM_HOST,
    Kind.TIMEOUT,
    Kind.BUILD,
    Kind.CRASH,
    Kind.ERROR,
)
"""Failures that the same configuration would meet again: the sampler is steered away from them."""

VIOLATED = {"failed": 1.0}
"""The constraint of a trial that failed so: above 0 means infeasible. TPE models such trials as worse than any other.

Optuna's own FAIL teaches TPE nothing: where 30 % of a toy space crashed, 65 of 80 trials went there, and 27 with this.
"""


@dataclass(frozen=True)
class Coded:
    """A parameter as Optuna sees it: its distribution, our value -> Optuna's, and back."""

    distribution: BaseDistribution
    encode: Callable[[Value], Any]
    decode: Callable[[Any], Value]


def indexed(parameter: Parameter) -> Coded:
    """The parameter as the proposing study searches it; every value survives the way there and back unchanged."""
    values = parameter.values()
    if isinstance(parameter, Int) or values is None:
        assert isinstance(parameter, (Int, Float))
        return _range(parameter)
    ordered = isinstance(parameter, Float)
    places = IntDistribution(0, len(values) - 1) if ordered else CategoricalDistribution(tuple(range(len(values))))
    return Coded(places, lambda value: _place(values, value), lambda place: values[int(place)])


def readable(parameter: Parameter) -> Coded:
    """The parameter as people read it. A list is shown as JSON text, which is all a categorical of Optuna's can hold."""
    if isinstance(parameter, (Choice, Fixed)):
        values = tuple(parameter.values() or ())
        texts = tuple(json.dumps(v) if isinstance(v, tuple) else v for v in values)
        if any(a == b for i, a in enumerate(texts) for b in texts[:i]):  # 1 beside True, "[1]" beside [1]
            texts = tuple(json.dumps(v) for v in values)
        return Coded(
            CategoricalDistribution(texts),
            lambda value: texts[_place(values, value)],
            lambda text: values[_place(texts, text)],
        )
    steps = parameter.values() if isinstance(parameter, Float) else None
    if isinstance(parameter, Float) and steps is not None:
        low, step = Decimal(str(parameter.low)), Decimal(str(parameter.step))
        high = float(low + (len(steps) - 1) * step)  # the last value a step reaches, exact in decimals
        return Coded(
            FloatDistribution(parameter.low, high, step=parameter.step), lambda value: min(float(value), high), float
        )
    assert isinstance(parameter, (Int, Float))
    return _range(parameter)


def _range(parameter: Int | Float) -> Coded:
    """A range as Optuna's; `high` is the last value that a step reaches, for Optuna would warn and do the same."""
    low, high = parameter.low, parameter.high
    if isinstance(parameter, Int):
        step = parameter.step or 1
        last = high if parameter.log else low + (high - low) // step * step
        whole = IntDistribution(low, last, log=parameter.log, step=1 if parameter.log else step)
        return Coded(whole, int, lambda value: min(max(int(value), low), last))
    return Coded(
        FloatDistribution(low, high, log=parameter.log), float, lambda value: min(max(float(value), low), high)
    )


def _place(values: Any, value: Value) -> int:
    """Where `value` stands among `values`; of numbers in steps the nearest."""
    value = frozen(value)
    for place, candidate in enumerate(values):
        if same(candidate, value):
            return place
    return min(range(len(values)), key=lambda place: abs(values[place] - value))


def searched(space: SearchSpace, code: Callable[[Parameter], Coded]) -> dict[str, Coded]:
    """The parameters with more than one value, coded. What is fixed is no business of a sampler's."""
    return {name: code(parameter) for name, parameter in space.items() if not isinstance(parameter, Fixed)}


def frozen_trial(
    trial: Trial, codes: Mapping[str, Coded], *, steer: bool, rungs: Mapping[str, float], notes: Mapping[str, Any]
) -> optuna.trial.FrozenTrial:
    """A finished trial as Optuna keeps it.

    steer: tell a deterministic failure as a violated constraint of a pruned trial (TPE does not look at FAIL).
    rungs: the rungs it completed, as the successive-halving pruner notes them.   notes: user attributes.
    """
    states = optuna.trial.TrialState
    known = {name: value for name, value in trial.params.items() if name in codes}
    curve = {int(epoch): float(value) for epoch, value in sorted(trial.curve.items())}
    last = curve[max(curve)] if curve else None
    state, value, constraints = states.FAIL, None, None
    if trial.state is State.COMPLETE and trial.value is not None:
        state, value = states.COMPLETE, float(trial.value)
    elif trial.state is State.PRUNED:
        state, value = states.PRUNED, last
    elif steer and trial.kind in DETERMINISTIC:
        state, value, constraints = states.PRUNED, last, VIOLATED
    return optuna.trial.create_trial(
        state=state,
        value=value,
        params={name: codes[name].encode(value) for name, value in known.items()},
        distributions={name: codes[name].distribution for name in known},
        intermediate_values=curve,
        system_attrs=dict(rungs),
        user_attrs=dict(notes),
        constraints=constraints,
    )
