"""Augmentation inside the compiled program: what the Keras layers of `models/augment.py` do to images, by strengths that are
inputs.

Each layer moves every pixel by an affine transform and samples the image anew. Here the transforms are multiplied, in the order
of the layers, and the image is sampled once: one of them alone gives what Keras's layer gives; of several the image is less
blurred, and what lies outside is the border of the image itself, not of one that was moved already.
"""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from ...models.shared_knobs import AUGMENTATION
from .hashed import fold, uniform

AUGMENT = 2**16  # under a step's key, beyond the places of the dropouts
DRAWS = 8  # numbers an image: what `transforms` takes them for

Array = Any


class Transform(NamedTuple):
    """For each of B images, where a pixel (x, y) of the new one comes from: (a0 x + a1 y + a2, b0 x + b1 y + b2) in pixels of the
    old one; (B,) each. As the rows that Keras's `affine_transform` takes."""

    a0: Array
    a1: Array
    a2: Array
    b0: Array
    b1: Array
    b2: Array

    def after(self, first: Transform) -> Transform:
        """Both in one: of images that `first` has moved. Written out, since a GPU's product of matrices would round."""
        a0, a1, a2, b0, b1, b2 = first
        return Transform(
            a0 * self.a0 + a1 * self.b0,
            a0 * self.a1 + a1 * self.b1,
            a0 * self.a2 + a1 * self.b2 + a2,
            b0 * self.a0 + b1 * self.b0,
            b0 * self.a1 + b1 * self.b1,
            b0 * self.a2 + b1 * self.b2 + b2,
        )


def augmented(images: Array, strengths: Array, key: Array) -> Array:
    """Images uint8 (B, H, W, C), each moved by numbers of its own, as float32 in [0, 255].

    strengths: float32 (6,), the AUGMENTATION knobs in their order, all 0: the images as they are.  key: of the step.
    """
    batch, height, width, _ = images.shape
    drawn = uniform(fold(key, AUGMENT), (DRAWS, batch))
    every = transforms(strengths, drawn, height, width)
    return sampled(images, functools.reduce(lambda first, second: second.after(first), every))


def transforms(strengths: Array, drawn: Array, height: int, width: int) -> list[Transform]:
    """Those of rotation, shift, flip, shear and zoom, as Keras's layers make them.  drawn: (DRAWS, B) in [0, 1)."""
    rotation, width_shift, height_shift, flip, shear, zoom = (strengths[i] for i in range(len(AUGMENTATION)))
    either = 2 * drawn - 1  # as far one way as the other
    one, none = jnp.ones_like(drawn[0]), jnp.zeros_like(drawn[0])
    middle_x, middle_y = (width - 1) / 2, (height - 1) / 2
    angle = either[0] * rotation * (jnp.pi / 180)
    cos, sin = jnp.cos(angle), jnp.sin(angle)
    turned = middle_x - middle_x * cos + middle_y * sin, middle_y - middle_x * sin - middle_y * cos
    mirrored = (flip > 0) & (drawn[3] < 0.5)
    slant = drawn[4] * shear * jnp.where(drawn[5] < 0.5, one, -one)
    tall, wide = 1 + either[6] * zoom, 1 + either[7] * zoom
    return [
        Transform(cos, -sin, turned[0], sin, cos, turned[1]),
        Transform(one, none, -either[2] * width_shift * width, none, one, -either[1] * height_shift * height),
        Transform(jnp.where(mirrored, -one, one), none, jnp.where(mirrored, width - 1.0, 0.0), none, one, none),
        Transform(one, slant, none, none, one, none),
        Transform(wide, none, middle_x * (1 - wide), none, tall, middle_y * (1 - tall)),
    ]


def _sources(transform: Transform, height: int, width: int) -> tuple[Array, Array]:
    """Where each pixel comes from, x and y, float32 (B, H, W).

    Computed in a loop over parts of the batch, out of which XLA takes nothing. Else it would compute them for each use anew,
    rounded now one way and now the other, and where that is across a whole number a pixel would be its neighbour.
    """
    batch = len(transform.a0)
    parts = next((n for n in range(2, batch) if batch % n == 0), batch)
    x, y = jnp.arange(width, dtype=jnp.float32), jnp.arange(height, dtype=jnp.float32)[:, None]

    def some(part: Transform) -> tuple[Array, Array]:
        a0, a1, a2, b0, b1, b2 = (each[:, None, None] for each in part)
        return jnp.clip(a0 * x + a1 * y + a2, 0, width - 1), jnp.clip(b0 * x + b1 * y + b2, 0, height - 1)

    found = jax.lax.map(some, Transform(*(each.reshape(parts, -1) for each in transform)))
    return tuple(each.reshape(batch, height, width) for each in found)


def sampled(images: Array, transform: Transform) -> Array:
    """Images uint8 (B, H, W, C) as `transform` moves them, float32: bilinear between four pixels, beyond the border the nearest.

    The four are the bytes of one word for each pixel, and all is kept flat: then one gather does, up to 8 times faster on a
    processor than one for each of the four from float32 images.
    """
    batch, height, width, channels = images.shape
    rows = images.reshape(batch, height, width * channels).astype(jnp.uint32)
    right = jnp.concatenate([rows[:, :, channels:], rows[:, :, -channels:]], axis=2)
    words = rows | right << 8
    below = jnp.concatenate([words[:, 1:], words[:, -1:]], axis=1)
    words = (words | below << 16).reshape(-1, channels)
    from_x, from_y = _sources(transform, height, width)
    left, top = jnp.floor(from_x), jnp.floor(from_y)
    image = jnp.arange(batch, dtype=jnp.int32)[:, None, None]
    at = (image * height + top.astype(jnp.int32)) * width + left.astype(jnp.int32)
    found = words.at[at.reshape(-1)].get(mode="promise_in_bounds")
    right, down = (from_x - left).reshape(-1, 1), (from_y - top).reshape(-1, 1)
    corners = ((found >> shift & 255).astype(jnp.float32) for shift in (0, 8, 16, 24))
    upper, lower = (a * (1 - right) + b * right for a, b in zip(corners, corners, strict=True))
    return (upper * (1 - down) + lower * down).reshape(images.shape)
