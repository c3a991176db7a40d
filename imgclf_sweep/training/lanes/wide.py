"""Narrower networks trained in the program of a wider one, where that costs less than to compile a program of their own.

A network of 16 filters in one of 64 is 64 filters of which 48 have nothing but zeros for weights, and so has all that they feed.
They stay so: what they give is 0, also through relu, pooling and normalisation, so that the weights behind them get no gradient;
and before relu at 0 neither do their own. No update rule here moves a weight that has no gradient and is 0. Nothing needs to
be masked. Pure values: no tensor library is imported.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import replace

import numpy as np

from .rates import seconds
from .shape import Inputs, Shape

COMPILE_SECONDS = 2.3  # of one thread of an AMD EPYC server, for the program of a network of one block
TRIALS = 8
"""Of each network that a program must serve before it pays to have it: a sweep of 100 trials has about so many of each, where 12
networks differ in shape. It is no guess about the sweep at hand, whose trials' numbers may not depend on how many follow."""


def own(shape: Shape, inputs: Inputs) -> Shape:
    """The shape of the network that `inputs` are of, trained in the program of `shape`."""
    return replace(shape, filters=inputs.filters, dense_units=inputs.dense_units)


def programs(shapes: Iterable[Shape], epochs: int) -> dict[Shape, Shape]:
    """For each of the shapes that a sweep can have, the shape whose program trains it: its own or a wider one.

    epochs: of a trial.
    """
    found: dict[Shape, Shape] = {}
    costs = {shape: seconds(shape)[1] * shape.steps * epochs * TRIALS for shape in shapes}
    for shape in sorted(costs, key=lambda s: (-costs[s], repr(s))):
        wider = [p for p in found.values() if holds(p, shape) and costs[p] - costs[shape] < COMPILE_SECONDS]
        found[shape] = min(wider, key=lambda p: (costs[p], repr(p)), default=shape)
    return found


def holds(wide: Shape, narrow: Shape) -> bool:
    """Whether `narrow` differs from `wide` in nothing but being narrower, or in nothing."""
    widths = (*wide.filters, wide.dense_units), (*narrow.filters, narrow.dense_units)
    return replace(narrow, filters=wide.filters, dense_units=wide.dense_units) == wide and all(
        w >= n for w, n in zip(*widths, strict=True)
    )


def embed(weights: Sequence[np.ndarray], narrow: Shape, wide: Shape) -> list[np.ndarray]:
    """The weights of a `narrow` network, in the order of its `variables()`, as float32 ones of the `wide` network."""
    found = []
    variables = zip(weights, wide.variables(), _views(narrow), _views(wide), strict=True)
    for given, variable, small, large in variables:
        array = np.full(large, float(variable.kind in ("ones", "variance")), np.float32)
        array[_corner(small)] = np.reshape(given, small)
        found.append(array.reshape(variable.shape))
    return found


def extract(weights: Sequence[np.ndarray], narrow: Shape, wide: Shape) -> list[np.ndarray]:
    """The weights of the `narrow` network from those of the `wide` one that it was trained in."""
    variables = zip(weights, narrow.variables(), _views(narrow), _views(wide), strict=True)
    return [
        np.ascontiguousarray(np.reshape(np.asarray(given), large)[_corner(small)]).reshape(variable.shape)
        for given, variable, small, large in variables
    ]


def _corner(view: Sequence[int]) -> tuple[slice, ...]:
    return tuple(slice(size) for size in view)


def _views(shape: Shape) -> list[tuple[int, ...]]:
    """Shapes in which what a narrower network has is the first of every axis: the kernel behind the flattening, (H*W*C, units),
    has the channels of one pixel after those of another."""
    variables = shape.variables()
    first = next(i for i, variable in enumerate(variables) if variable.kind == "dense")
    height, width, channels = shape.features()[-1]
    views = [variable.shape for variable in variables]
    views[first] = (math.prod((height, width)), channels, shape.dense_units)
    return views
