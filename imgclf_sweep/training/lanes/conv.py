"""A convolution with relu and pooling as pure JAX functions, written for what XLA makes of them on a processor.

What they compute is Keras 3's on TensorFlow. The times that decided between forms are of one thread of an AMD EPYC server.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

Array = Any

CONVS = ("fused", "patches", "conv")
"""How a convolution is computed. "patches": the pixels under the kernel are laid side by side and multiplied as one matrix a
lane. "fused": the same, but that of the images themselves, if its kernel has at most FUSED numbers a filter and its windows are
no larger than FUSED_POOL, is computed together with its pooling; and on a processor all are computed for some images at a time.
"conv": XLA's own, which over lanes becomes a grouped one, and in a loop on a processor is slow."""

FUSED = 48
"""Up to 4x4 pixels of three channels. An epoch with the images' convolution fused in parts, and as patches of all images: MNIST
(3x3) 0.20 and 0.42 s; 32 filters of 3x3x3 on 100x100 pixels 1.8 and 3.1 s, on 32x32 pixels 0.49 and 0.64 s."""

FUSED_POOL = 4
"""A window's places are unrolled: with 8x8 a program took 4.4 s to compile instead of 0.3; 12x12 are more than int8 counts."""

PART_BYTES = 2**20
"""Of the largest array of a part: 2**18 to 2**21 were equally fast, 2**23 a tenth slower, all images at once 1.1 to 2.4 times."""


def convolve_and_pool(
    x: Array, kernel: Array, bias: Array, size: tuple[int, int], pool: int, same: bool, how: str, image: bool
) -> Array:
    """The largest of each pool x pool window of a convolution, plus bias, through relu: (B, *size, F).

    x: (B, H, W, C).  kernel: (k, k, C, F).  bias: (F,).  size: rows and columns of windows; what lies beyond is not
    computed.  same: zeros around the images as Keras's "same" puts them, the odd one below and to the right.  image: whether
    x are the images, of which no gradient is asked for.
    """
    k, channels, filters = kernel.shape[1:]
    height, width = pool * size[0] + k - 1, pool * size[1] + k - 1
    around = (k - 1) // 2, k // 2
    x = (jnp.pad(x, ((0, 0), around, around, (0, 0))) if same else x)[:, :height, :width]
    if how == "fused" and image and 1 < pool <= FUSED_POOL and k * k * channels <= FUSED:
        return _in_parts(Fused(pool), x, kernel, bias, 4 * math.prod(size) * filters)
    apart = Apart(pool, how)
    if how != "fused" or jax.default_backend() != "cpu":  # a GPU rather keeps what the backward pass needs
        return apart.forward(x, kernel, bias)[0]
    return _in_parts(apart, x, kernel, bias, 4 * height * width * max(filters, k * k * channels))


def _in_parts(one: Fused | Apart, x: Array, kernel: Array, bias: Array, each: int) -> Array:
    """What `one` gives for all images; on a processor computed for so many at a time that an array of `each` bytes an image stays
    in a core's cache, forward and backward.

    There are two parts at least: what comes out of no loop and is flattened XLA computes element by element, 7 times as slowly.
    """
    count = size = len(x)
    if jax.default_backend() == "cpu":
        most = min(max(PART_BYTES // each, 1), max(count // 2, 1))
        size = max(n for n in range(1, most + 1) if count % n == 0)

    def parted(array: Array) -> Array:
        return array.reshape(count // size, size, *array.shape[1:])

    def joined(parts: Array) -> Array:
        return parts.reshape(count, *parts.shape[2:])

    @jax.custom_vjp
    def whole(x: Array, *weights: Array) -> Array:
        return joined(jax.lax.map(lambda part: one.forward(part, *weights)[0], parted(x)))

    def forward(x: Array, *weights: Array) -> tuple[Array, Any]:
        found, kept = jax.lax.map(lambda part: one.forward(part, *weights), parted(x))
        return joined(found), (x, weights, kept)

    def backward(given: Any, gradient: Array) -> tuple[Array, ...]:
        x, weights, kept = given

        def add(totals: list[Array], part: tuple[Array, Any, Array]) -> tuple[list[Array], Array]:
            part, kept, gradient = part
            to_x, *found = one.backward((part, *weights), kept, gradient)
            return [total + new for total, new in zip(totals, found, strict=True)], to_x

        totals, to_x = jax.lax.scan(add, [jnp.zeros_like(w) for w in weights], (parted(x), kept, parted(gradient)))
        return joined(to_x), *totals

    whole.defvjp(forward, backward)
    return whole(x, kernel, bias)


@dataclass(frozen=True)
class Apart:
    """The convolution of padded images, then the pooling. Adding the bias and relu keep order, and so may follow it."""

    pool: int
    how: str

    def forward(self, x: Array, kernel: Array, bias: Array) -> tuple[Array, Any]:
        return self._all(x, kernel, bias), ()

    def _all(self, x: Array, kernel: Array, bias: Array) -> Array:
        k, _, channels, filters = kernel.shape
        if self.how == "conv":
            x = jax.lax.conv_general_dilated(x, kernel, (1, 1), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC"))
        else:
            height, width = x.shape[1] - k + 1, x.shape[2] - k + 1
            shifted = [x[:, i : i + height, j : j + width] for i in range(k) for j in range(k)]
            x = jnp.concatenate(shifted, axis=-1) @ kernel.reshape(k * k * channels, filters)
        return jax.nn.relu(max_pool(x, self.pool) + bias)

    def backward(self, given: Sequence[Array], kept: Any, gradient: Array) -> tuple[Array, ...]:
        """All is computed once more, which costs less than to keep it."""
        return jax.vjp(self._all, *given)[1](gradient)


@dataclass(frozen=True)
class Fused:
    """The same of the images themselves, without the convolution's own output, the largest array of a small network.

    Each window's values are computed where they are compared. Of equal ones the first wins and has the gradient.
    """

    pool: int

    def forward(self, x: Array, kernel: Array, bias: Array) -> tuple[Array, Array]:
        """Also the place of the largest in its window, int8; -1 where relu lets nothing through."""
        k = len(kernel)
        size = (x.shape[1] - k + 1) // self.pool, (x.shape[2] - k + 1) // self.pool
        taps = kernel.reshape(-1, kernel.shape[-1])
        values = [
            sum(pixel * tap for pixel, tap in zip(pixels, taps, strict=True)) for pixels in self._under(x, size, k)
        ]
        largest, winner = values[0], jnp.zeros(values[0].shape, jnp.int8)
        for place, value in enumerate(values[1:], 1):
            winner = jnp.where(value > largest, np.int8(place), winner)
            largest = jnp.maximum(largest, value)
        found = jax.nn.relu(largest + bias)
        return found, jnp.where(found > 0, winner, np.int8(-1))

    def backward(self, given: Sequence[Array], winner: Array, gradient: Array) -> tuple[Array, ...]:
        """Of the images it is given as 0.  The sums over images are products with ones: XLA's own are slow on a processor."""
        x, kernel, _ = given
        gradient = jnp.where(winner < 0, 0, gradient)
        *others, last = self._under(x, winner.shape[1:3], len(kernel))
        ones = jnp.ones(math.prod(gradient.shape[:-1]))

        def total(each: Array) -> Array:
            return ones @ each.reshape(len(ones), -1)

        to_taps = []
        for tap, pixel in enumerate(last):
            for place, pixels in reversed(list(enumerate(others))):
                pixel = jnp.where(winner == place, pixels[tap], pixel)
            to_taps.append(total(pixel * gradient))
        return jnp.zeros_like(x), jnp.stack(to_taps).reshape(kernel.shape), total(gradient)

    def _under(self, x: Array, size: tuple[int, int], k: int) -> list[list[Array]]:
        """For each place in the windows, row by row, the numbers (B, H, W, 1) under the kernel there, in its order."""
        height, width = self.pool * (size[0] - 1) + 1, self.pool * (size[1] - 1) + 1
        taps = [(i, j, c) for i in range(k) for j in range(k) for c in range(x.shape[-1])]
        return [
            [x[:, a + i : a + i + height : self.pool, b + j : b + j + width : self.pool, c : c + 1] for i, j, c in taps]
            for a in range(self.pool)
            for b in range(self.pool)
        ]


def max_pool(x: Array, size: int) -> Array:
    """The largest of each size x size window of x (B, H, W, C); what is left over at the edge is dropped."""
    if size == 1:
        return x
    batch, height, width, channels = x.shape
    rows, columns = height // size, width // size
    x = x[:, : rows * size, : columns * size]
    return _largest(x.reshape(batch, rows, size, columns, size, channels))


@jax.custom_vjp
def _largest(x: Array) -> Array:
    """The maximum over axes 2 and 4 of x (B, H, s, W, s, C), by comparing and in the gradient too: XLA's windowed maximum
    has a slow scatter there. Equal maxima share the gradient, where XLA gives it to the first."""
    return functools.reduce(jnp.maximum, _places(x))


def _places(x: Array) -> list[Array]:
    return [x[:, :, i, :, j] for i in range(x.shape[2]) for j in range(x.shape[4])]


def _largest_forward(x: Array) -> tuple[Array, tuple[Array, Array]]:
    largest = _largest(x)
    return largest, (x, largest)


def _largest_backward(kept: tuple[Array, Array], gradient: Array) -> tuple[Array]:
    x, largest = kept
    share = gradient / sum((place == largest).astype(x.dtype) for place in _places(x))
    return (jnp.where(x == largest[:, :, None, :, None], share[:, :, None, :, None], 0),)


_largest.defvjp(_largest_forward, _largest_backward)
