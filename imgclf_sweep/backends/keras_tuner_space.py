"""Our values as Keras Tuner's and back. Keras Tuner 1.4.8.

A parameter keeps its own type wherever Keras Tuner can hold it, so that a `build(hp)` reads from an exported project what it
read in the sweep. A list, None, or a choice of several types becomes JSON text.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from keras_tuner import HyperParameters

from ..space import Choice, Fixed, Float, Int, Parameter, Params, SearchSpace, Value, frozen, same

STEPS = 1_000
"""A stepped range of at most this many values is an ordered choice there: Keras Tuner's own `Float(step=)` loses the last value
to rounding ((0.5 - 0.2) // 0.1 is 2). A longer one is searched without steps and rounded to the nearest."""

EMPTY = "tuner/empty"
"""Stands in a space without parameters, for which an oracle would have no values to give. Never handed on."""


def texts(parameter: Choice | Fixed) -> list[Any]:
    """The parameter's values as Keras Tuner holds them, in order: all of one type."""
    values = list(parameter.values() or ())
    kinds = {type(v) for v in values}
    if kinds == {int, float}:
        return [float(v) for v in values]
    return values if kinds in ({int}, {float}, {str}, {bool}) else [json.dumps(v) for v in values]


def hyperparameters(space: SearchSpace) -> HyperParameters:
    """The space as Keras Tuner searches it, with our conditions on earlier parameters.

    Made from Keras Tuner's own JSON: `conditional_scope` cannot nest two parents that do not depend on each other.
    """
    declared = []
    for name, parameter in space.items():
        alone = HyperParameters()
        _declare(alone, name, parameter)
        entry = alone.get_config()["space"][0]
        entry["config"]["conditions"] = [
            {"class_name": "Parent", "config": {"name": parent, "values": [encode(space[parent], v) for v in allowed]}}
            for parent, allowed in (parameter.when or {}).items()
        ]
        declared.append(entry)
    hp = HyperParameters.from_config({"space": declared, "values": {}})
    if not space:
        hp.Fixed(EMPTY, 0)
    return hp


def _declare(hp: HyperParameters, name: str, parameter: Parameter) -> None:
    if isinstance(parameter, Fixed):
        hp.Fixed(name, texts(parameter)[0])
        return
    default = encode(parameter, parameter.start())
    if isinstance(parameter, Choice):
        values = texts(parameter)
        if len(values) == 2 and isinstance(values[0], bool):  # a Choice would keep them as 1 and 0
            hp.Boolean(name, default=default)
        else:
            hp.Choice(name, values, default=default)
    elif isinstance(parameter, Int):
        if parameter.log:
            hp.Int(name, parameter.low, parameter.high, sampling="log", default=default)
        else:
            hp.Int(name, parameter.low, parameter.high, step=parameter.step or 1, default=default)
    else:
        assert isinstance(parameter, Float)
        steps = parameter.values()
        if steps is not None and len(steps) <= STEPS:
            hp.Choice(name, list(steps), ordered=True, default=default)
        else:
            sampling = "log" if parameter.log else "linear"
            hp.Float(name, parameter.low, parameter.high, sampling=sampling, default=default)


def encode(parameter: Parameter, value: Value) -> Any:
    """Our value as Keras Tuner holds it."""
    if isinstance(parameter, (Choice, Fixed)):
        values = parameter.values() or ()
        return next(text for text, v in zip(texts(parameter), values, strict=True) if same(v, frozen(value)))
    if isinstance(parameter, Int):
        return int(value)
    steps = parameter.values()
    return float(value) if steps is None else min(steps, key=lambda v: abs(v - value))


def decode(parameter: Parameter, value: Any) -> Value:
    """Keras Tuner's value as ours. What lies beyond an end by a rounding of Keras Tuner's is brought back to it."""
    if isinstance(parameter, (Choice, Fixed)):
        values = parameter.values() or ()
        return next(v for text, v in zip(texts(parameter), values, strict=True) if text == value)
    assert isinstance(parameter, (Int, Float))
    if isinstance(parameter, Int):
        return min(max(int(value), parameter.low), parameter.high)
    steps = parameter.values()
    if steps is not None:
        return min(steps, key=lambda v: abs(v - value))
    return min(max(float(value), parameter.low), parameter.high)


def params_of(space: SearchSpace, values: Mapping[str, Any]) -> Params:
    """The active parameters among an oracle's values, in our order; its own `tuner/...` values are left behind."""
    return {name: decode(parameter, values[name]) for name, parameter in space.items() if name in values}
