"""The knobs of the "cnn" family as plain values: what each may hold and is by default, what contradicts what. No Keras.

A knob marked `each` takes one value for all blocks, or a list with one value a block.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..errors import BadInput
from ..space import Choice, Float, Int, Parameter, Params, SearchSpace, Value, frozen, same
from ..text import printable, unknown

FAMILIES = ("cnn",)

OPTIMIZERS = ("adam", "adamw", "sgd", "rmsprop", "adagrad", "adadelta", "adamax", "nadam", "ftrl", "lion", "adafactor")
"""Keras's own names of the optimizers that `keras.optimizers.get` makes with nothing but a learning rate."""

WITH_MOMENTUM = ("sgd", "rmsprop")
PADDINGS = ("valid", "same")

MOST = 100
"""More blocks, or convolutions in one, than any plain network has: a mistyped number, which would build for ever."""

COMBINATIONS = 100_000
"""How many combinations of the knobs that can contradict each other are looked through."""


def _whole(least: int, most: int | None = None) -> Callable[[Value], bool]:
    return lambda v: isinstance(v, int) and not isinstance(v, bool) and v >= least and (most is None or v <= most)


def _number(fits: Callable[[float], bool]) -> Callable[[Value], bool]:
    return lambda v: isinstance(v, (int, float)) and not isinstance(v, bool) and fits(v)


@dataclass(frozen=True)
class Knob:
    """fits: whether one value is allowed.  wants: the same in words.  each: may be a list with one value a block."""

    default: Value
    fits: Callable[[Value], bool]
    wants: str
    each: bool = False

    def allows(self, value: Value) -> bool:
        if self.each and isinstance(value, tuple):
            return 1 <= len(value) <= MOST and all(map(self.fits, value))
        return self.fits(value)


_RATE = (_number(lambda v: 0 <= v < 1), "a number of at least 0 and below 1")
_PENALTY = (_number(lambda v: v >= 0), "a number of at least 0")
_FLAG = (lambda v: isinstance(v, bool), "True or False")

KNOBS: Mapping[str, Knob] = {
    "blocks": Knob(1, _whole(1, MOST), f"a whole number from 1 to {MOST}"),
    "convs": Knob(1, _whole(1, MOST), f"a whole number from 1 to {MOST}", each=True),
    "filters": Knob(32, _whole(1), "a whole number of at least 1", each=True),
    "kernel_size": Knob(3, _whole(1), "a whole number of at least 1", each=True),
    "padding": Knob("valid", lambda v: v in PADDINGS, "'valid' or 'same'", each=True),
    "batch_norm": Knob(False, *_FLAG, each=True),
    "pool_size": Knob(2, _whole(1), "a whole number of at least 1", each=True),
    "dropout": Knob(0.0, *_RATE, each=True),
    "l1": Knob(0.0, *_PENALTY, each=True),
    "l2": Knob(0.0, *_PENALTY, each=True),
    "l1l2": Knob(0.0, *_PENALTY, each=True),
    "dense_units": Knob(128, _whole(1), "a whole number of at least 1"),
    "dense_batch_norm": Knob(False, *_FLAG),
    "dense_dropout": Knob(0.0, *_RATE),
    "classes": Knob(None, _whole(2), "a whole number of at least 2"),
    "optimizer": Knob("adam", lambda v: v in OPTIMIZERS, "an optimizer's name"),
    "learning_rate": Knob(None, lambda v: v is None or _number(lambda n: n > 0)(v), "a number above 0, or None"),
    "momentum": Knob(None, *_RATE),
}


@dataclass(frozen=True)
class CnnKnobs:
    """One configuration with every knob filled in. Tuples hold one value a block and are `blocks` long.

    `learning_rate` and `momentum` None: the optimizer's default.  `classes` None: as many as the data set has.
    """

    blocks: int
    convs: tuple[int, ...]
    filters: tuple[int, ...]
    kernel_size: tuple[int, ...]
    padding: tuple[str, ...]
    batch_norm: tuple[bool, ...]
    pool_size: tuple[int, ...]
    dropout: tuple[float, ...]
    l1: tuple[float, ...]
    l2: tuple[float, ...]
    l1l2: tuple[float, ...] | None
    dense_units: int
    dense_batch_norm: bool
    dense_dropout: float
    classes: int | None
    optimizer: str
    learning_rate: float | None
    momentum: float | None


def resolve(params: Mapping[str, Value]) -> CnnKnobs:
    """The network that `params` (active knobs only; the others take their defaults) asks for.

    Raises: BadInput for an unknown knob, a value it cannot hold, or knobs that contradict each other.
    """
    params = {name: frozen(value) for name, value in params.items()}
    for name, value in params.items():
        _check_value(name, value)
    for rule in RULES:
        problem = rule.problem(params)
        if problem:
            raise BadInput(problem)
    blocks = params.get("blocks") or next(iter(_lengths(params).values()), 1)
    filled: dict[str, Any] = {}
    for name, knob in KNOBS.items():
        value = params.get(name, knob.default)
        filled[name] = value if isinstance(value, tuple) or not knob.each else (value,) * blocks
    return CnnKnobs(**{**filled, "blocks": blocks, "l1l2": filled["l1l2"] if "l1l2" in params else None})


def check_space(space: SearchSpace) -> None:
    """Refuse a space of which any configuration could not be a network.

    Raises: BadInput for an unknown knob, a value that a knob cannot hold, and for knobs that contradict each other in
    some configuration, which is named.
    """
    for name, parameter in space.items():
        if name not in KNOBS:
            raise BadInput(unknown("knob of model cnn", name, KNOBS))
        values = (
            parameter.grid()
        )  # of a range, both ends: what a knob can hold is itself a range, so what lies between fits
        for value in values if parameter.kind in ("choice", "fixed") else (values[0], values[-1]):
            _check_value(name, value)
    for rule in RULES:
        for params in _combinations(space, rule):
            problem = rule.problem(params)
            if problem:
                raise BadInput(f"{problem} (possible in this space: {words(params)})")


def check_image(net: CnnKnobs, shape: tuple[int, int, int]) -> None:
    """Refuse a network that leaves nothing of an image of `shape` (H, W, C).  Raises: BadInput."""
    height, width, _ = shape
    for block in range(net.blocks):
        kernel, pool = net.kernel_size[block], net.pool_size[block]
        shrinks = kernel - 1 if net.padding[block] == "valid" else 0
        steps = [(f"a {kernel}x{kernel} convolution", kernel if shrinks else 1, lambda n, k=shrinks: n - k)]
        steps = steps * net.convs[block] + [(f"{pool}x{pool} pooling", pool, lambda n, p=pool: n // p)]
        for what, least, shrink in steps:
            if min(height, width) < least:
                raise BadInput(
                    f"image {shape[0]}x{shape[1]} is too small for block {block + 1}: "
                    f"{height}x{width} is left of it there, less than {what} takes"
                )
            height, width = shrink(height), shrink(width)


def words(params: Mapping[str, Value]) -> str:
    """`params` on one line: `filters=[32, 64], dropout=0.2`."""
    shown = ((n, list(v) if isinstance(v, tuple) else v) for n, v in params.items())
    return ", ".join(f"{printable(n)}={printable(repr(v))}" for n, v in shown) or "all defaults"


def _check_value(name: str, value: Value) -> None:
    knob = KNOBS.get(name)
    if knob is None:
        raise BadInput(unknown("knob of model cnn", name, KNOBS))
    if knob.allows(value):
        return
    if name == "optimizer" and isinstance(value, str):
        raise BadInput(unknown("optimizer", value, OPTIMIZERS))
    given = list(value) if isinstance(value, tuple) else value
    each = f", or a list of 1 to {MOST} such, one a block" if knob.each else ""
    raise BadInput(f"knob '{name}' must be {knob.wants}{each}, got {printable(repr(given))}")


@dataclass(frozen=True)
class Rule:
    """Knobs that can contradict each other.

    names: those concerned.  problem: the one line for a configuration that contradicts itself, else None.
    part: what of a value matters to `problem`; values alike in this need not all be tried.
    """

    names: Sequence[str]
    problem: Callable[[Mapping[str, Value]], str | None]
    part: Callable[[str, Value], Value]


def _lengths(params: Mapping[str, Value]) -> dict[str, int]:
    return {n: len(v) for n, v in params.items() if n in KNOBS and KNOBS[n].each and isinstance(v, tuple)}


def _length_problem(params: Mapping[str, Value]) -> str | None:
    lengths = _lengths(params)
    if "blocks" in params:
        lengths = {"blocks": params["blocks"], **lengths}
    for (a, n), (b, m) in itertools.combinations(lengths.items(), 2):
        if n != m:
            first = f"knob 'blocks' is {n}" if a == "blocks" else f"knob '{a}' has {n} values"
            return f"{first} but '{b}' has {m}: a list needs one value a block"
    return None


def _momentum_problem(params: Mapping[str, Value]) -> str | None:
    optimizer = params.get("optimizer", KNOBS["optimizer"].default)
    if "momentum" not in params or optimizer in WITH_MOMENTUM:
        return None
    return (
        f"knob 'momentum': the optimizer {optimizer} has none, only {' and '.join(WITH_MOMENTUM)} do; "
        f"write when={{'optimizer': {list(WITH_MOMENTUM)}}}"
    )


def _penalty_problem(params: Mapping[str, Value]) -> str | None:
    other = [n for n in ("l1", "l2") if n in params]
    if "l1l2" not in params or not other:
        return None
    return f"knob 'l1l2' excludes '{other[0]}': use l1l2 alone, or l1 and l2"


RULES = (
    Rule(
        ["blocks", *(n for n, k in KNOBS.items() if k.each)],
        _length_problem,
        lambda name, v: len(v) if isinstance(v, tuple) else v if name == "blocks" else None,
    ),
    Rule(["momentum", "optimizer"], _momentum_problem, lambda name, v: name == "optimizer" and v in WITH_MOMENTUM),
    Rule(["l1", "l2", "l1l2"], _penalty_problem, lambda name, v: None),
)


def _combinations(space: SearchSpace, rule: Rule) -> Iterable[Params]:
    """Every configuration of the rule's knobs and what they are conditioned on, one for all that are alike to the rule.

    Raises: BadInput above COMBINATIONS.
    """
    names = {n for n in rule.names if n in space}
    while grown := {parent for n in names for parent in space[n].when or {}} - names:
        names |= grown
    reduced = SearchSpace(
        {n: Choice(_representatives(space, names, n, rule), when=space[n].when) for n in space if n in names}
    )
    for count, params in enumerate(reduced.grid()):
        if count == COMBINATIONS:
            raise BadInput(f"{', '.join(sorted(names))} depend on each other in too many ways to be checked")
        yield params


def _representatives(space: SearchSpace, names: set[str], name: str, rule: Rule) -> list[Value]:
    """One of each group of values of `name` that meet the same conditions of other knobs and are alike to the rule."""
    asked = [v for other in space if other in names for v in (space[other].when or {}).get(name, ())]
    found: dict[Any, Value] = {}
    for value in (*asked, *_some(space[name], len(asked))):
        meets = tuple(same(value, v) for v in asked)
        found.setdefault((meets, rule.part(name, value)), value)
    return list(found.values())


def _some(parameter: Parameter, asked: int) -> Iterable[Value]:
    """Every choice; of a range enough to have each number of blocks and one value that is not `asked` for."""
    if isinstance(parameter, Int):
        every = range(parameter.low, parameter.high + 1, parameter.step or 1)
        return every[: max(MOST, asked + 1)]
    if isinstance(parameter, Float) and parameter.values() is None:
        return (*parameter.grid(), (parameter.low + parameter.high) / 2)
    return parameter.grid()
