"""The weights that a trial of the "cnn" family starts from: Keras's initializers, drawn on the host from the trial's seed.

There, and not in the compiled program, which is the smaller for it: it trains from whatever it is given.
"""

from __future__ import annotations

import math

import numpy as np

from .shape import Shape, Variable

CUT = 2.0  # deviations, at which Keras's normal initializers cut off
CUT_DEVIATION = 0.87962566103423978  # of a normal distribution of deviation 1 that is cut there


def fresh(shape: Shape, initializer: str, seed: int) -> list[np.ndarray]:
    """Weights float32 in the order of `shape.variables()`, from `seed` alone.

    initializer: "glorot_uniform", "glorot_normal", "he_uniform" or "he_normal", of all kernels but the last layer's, which
    has Keras's default.
    """
    variables = shape.variables()
    kernels = [v for v in variables if v.kind in ("conv", "dense")]
    ends = np.cumsum([math.prod(v.shape) for v in kernels])
    parts = iter(np.split(uniform(seed, int(ends[-1])), ends[:-1]))
    found = []
    for variable in variables:
        if variable in kernels:
            last = variable is kernels[-1]
            found.append(_kernel(variable, next(parts), "glorot_uniform" if last else initializer))
        else:
            found.append(np.full(variable.shape, float(variable.kind in ("ones", "variance")), np.float32))
    return found


def _kernel(variable: Variable, drawn: np.ndarray, initializer: str) -> np.ndarray:
    """drawn: numbers in [0, 1), one for each weight."""
    *window, inputs, outputs = variable.shape
    area, (scaled_by, kind) = math.prod(window), initializer.split("_")
    variance = 1 / (area * inputs / 2) if scaled_by == "he" else 1 / (area * (inputs + outputs) / 2)
    if kind == "uniform":
        values = np.float32(math.sqrt(3 * variance)) * (2 * drawn - 1)
    else:
        from scipy.special import ndtr, ndtri  # here: it takes 0.1 s to import, and few ask for it

        below = ndtr(-CUT)
        values = math.sqrt(variance) / CUT_DEVIATION * ndtri(below + (1 - 2 * below) * drawn.astype(np.float64))
    return values.astype(np.float32).reshape(variable.shape)


def uniform(seed: int, count: int) -> np.ndarray:
    """Numbers in [0, 1), float32 (count,), of 24 random bits each, by the hash of `hashed`."""
    low, high = (
        _mix(np.asarray([number], np.uint32))[0] for number in ((seed + 0x9E3779B9) % 2**32, seed ^ 0x85EBCA6B)
    )
    numbers = _mix(_mix(np.arange(count, dtype=np.uint32) ^ low) + high)
    return (numbers >> np.uint32(8)).astype(np.float32) * np.float32(2**-24)


def _mix(x: np.ndarray) -> np.ndarray:
    x = (x ^ (x >> np.uint32(16))) * np.uint32(0x7FEB352D)
    x = (x ^ (x >> np.uint32(15))) * np.uint32(0x846CA68B)
    return x ^ (x >> np.uint32(16))
