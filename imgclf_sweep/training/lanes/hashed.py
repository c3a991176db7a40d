"""Random numbers inside the compiled program: a hash of (key, position), so any lane draws its own whatever the others do.

JAX's own generator, Threefry, would do, but its 20 rounds are written out anew wherever numbers are drawn, which made up
half of the time to compile. This one is two rounds of the integer hash `lowbias32` (Chris Wellons, "Prospecting for hash
functions", 2018), bijective and of low bias, keyed between them: plenty for weights, shuffling and dropout.
"""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

Array = Any


def key_of(seed: Array | int, *path: Array | int) -> Array:
    """A key, uint32 (2,), for a seed below 2**32 and a path of numbers such as epoch and step."""
    seed = jnp.uint32(seed)
    key = jnp.stack([_mix(seed + np.uint32(0x9E3779B9)), _mix(seed ^ np.uint32(0x85EBCA6B))])
    for number in path:
        key = fold(key, number)
    return key


def fold(key: Array, number: Array | int) -> Array:
    """The key of `number` under `key`."""
    return _mix(_mix(key ^ _mix(jnp.uint32(number) + np.uint32(0xC2B2AE35))) + np.arange(2, dtype=np.uint32))


def bits(key: Array, shape: tuple[int, ...]) -> Array:
    """Random numbers, uint32, of `shape`: those of a position follow from its place in row-major order, whatever the shape.

    The place is counted along each axis, not along one that is then folded: XLA divides to fold, element by element.
    """
    place = jnp.zeros(shape, jnp.uint32)
    for axis in range(len(shape)):
        along = jax.lax.broadcasted_iota(jnp.uint32, shape, axis)
        place = place + along * np.uint32(math.prod(shape[axis + 1 :]))
    return _mix(_mix(place ^ key[0]) + key[1])


def uniform(key: Array, shape: tuple[int, ...]) -> Array:
    """Numbers in [0, 1), float32, of 24 random bits each."""
    return (bits(key, shape) >> np.uint32(8)).astype(jnp.float32) * np.float32(2**-24)


def shuffled(key: Array, count: int) -> Array:
    """0 to count - 1, int32, in the order of their random numbers, which the hash makes all different."""
    return jnp.argsort(bits(key, (count,))).astype(jnp.int32)


def _mix(x: Array) -> Array:
    x = (x ^ (x >> np.uint32(16))) * np.uint32(0x7FEB352D)
    x = (x ^ (x >> np.uint32(15))) * np.uint32(0x846CA68B)
    return x ^ (x >> np.uint32(16))
