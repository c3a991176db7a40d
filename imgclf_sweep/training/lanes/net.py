"""The "cnn" family as pure JAX functions of its weights, in the order of the Keras model's `get_weights()`. One lane.

What each layer and loss computes is Keras 3's on TensorFlow, so that the weights mean the same in both.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from ...models.shared_knobs import WITH_SMOOTHING
from .conv import convolve_and_pool, max_pool
from .hashed import fold, uniform
from .shape import EPSILON, Shape

NORM_MOMENTUM, NORM_EPSILON = 0.99, 1e-3  # Keras's BatchNormalization
FOCAL_ALPHA, FOCAL_GAMMA = 0.25, 2.0  # Keras's categorical_focal_crossentropy

Array = Any


class Pass:
    """One forward pass over a batch x, float32 (B, H, W, C).

    key: of the dropouts; None measures instead of training.  mask: which of the B images are real, or None for all.
    After the call `weights` holds the moved statistics of normalisations too.
    """

    def __init__(
        self, shape: Shape, weights: Sequence[Array], rates: Array, conv: str, key: Array | None, mask: Array | None
    ) -> None:
        self.shape = shape
        self.weights = list(weights)
        self._rates = rates
        self._conv = conv
        self._key = key
        self._mask = mask
        self._next: Iterator[int] = iter(range(len(self.weights)))

    def __call__(self, x: Array) -> Array:
        """Logits (B, classes): the model's last softmax is the loss's."""
        shape = self.shape
        for i in range(shape.blocks):
            for j in range(shape.convs[i]):
                x = self._convolve(x, i, image=i == j == 0, last=j == shape.convs[i] - 1)
            if i == shape.blocks - 1:
                x = x.reshape(len(x), -1)  # before its dropout, which XLA would else compute element by element
            x = self._dropout(x, i)
        x = jax.nn.relu(x @ self._take() + self._take())
        if shape.dense_batch_norm:
            x = self._normalise(x)
        x = self._dropout(x, shape.blocks)
        return x @ self._take() + self._take()

    def _take(self) -> Array:
        return self.weights[next(self._next)]

    def _convolve(self, x: Array, block: int, image: bool, last: bool) -> Array:
        """One convolution with its relu and normalisation, and after the block's last one the pooling.

        Of what pooling drops at the edge nothing is computed, unless a normalisation counts it.
        """
        shape = self.shape
        height, width = shape.conv_output(block, *x.shape[1:3])
        pool, norm = shape.pool_size[block] if last else 1, shape.batch_norm[block]
        within = 1 if norm else pool
        size = height // within, width // within
        same = shape.padding[block] == "same"
        x = convolve_and_pool(x, self._take(), self._take(), size, within, same, self._conv, image)
        return max_pool(self._normalise(x), pool) if norm else x

    def _normalise(self, x: Array) -> Array:
        gamma, beta = self._take(), self._take()
        at = next(self._next)
        next(self._next)
        mean, variance = self.weights[at], self.weights[at + 1]
        if self._key is not None:
            batch_mean, batch_variance = moments(x, self._mask)
            kept = NORM_MOMENTUM
            self.weights[at] = kept * mean + (1 - kept) * jax.lax.stop_gradient(batch_mean)
            self.weights[at + 1] = kept * variance + (1 - kept) * jax.lax.stop_gradient(batch_variance)
            mean, variance = batch_mean, batch_variance
        scale = jax.lax.rsqrt(variance + NORM_EPSILON) * gamma
        return x * scale + (beta - mean * scale)

    def _dropout(self, x: Array, place: int) -> Array:
        if self._key is None or not self.shape.dropout[place]:
            return x
        rate = self._rates[place]
        kept = uniform(fold(self._key, place), x.shape) >= rate
        return jnp.where(kept, x / (1 - rate), 0)


def moments(x: Array, mask: Array | None) -> tuple[Array, Array]:
    """Mean and variance (of the population) a channel, over the images that are real."""
    axes = tuple(range(x.ndim - 1))
    if mask is None:
        return x.mean(axes), x.var(axes)
    mask = mask.reshape(-1, *(1,) * (x.ndim - 1))
    count = mask.sum() * math.prod(x.shape[1:-1])
    mean = jnp.where(mask, x, 0).sum(axes) / count
    return mean, jnp.where(mask, (x - mean) ** 2, 0).sum(axes) / count


def losses(name: str, logits: Array, labels: Array, smoothing: Array | float = 0.0) -> Array:
    """Keras's loss `name` of each image, (B,), for a softmax of `logits` (B, classes) and class numbers (B,).

    smoothing: in [0, 1), spread over the classes; the binary cross-entropy gives each half of it, and the others that Keras
    smooths an equal share. Those that it does not smooth take no notice.
    The cross-entropies are taken from the logits, as Keras does on TensorFlow wherever it knows them: so the binary one is of
    their sigmoid, though the model ends in a softmax, and nothing is clipped.
    """
    truth = jax.nn.one_hot(labels, logits.shape[-1])
    if name in WITH_SMOOTHING:
        truth = truth * (1 - smoothing) + smoothing / (2 if name == "binary_crossentropy" else logits.shape[-1])
    if name in ("sparse_categorical_crossentropy", "categorical_crossentropy"):
        return -(truth * jax.nn.log_softmax(logits)).sum(-1)
    if name == "binary_crossentropy":
        return (jax.nn.softplus(logits) - truth * logits).mean(-1)
    given = jax.nn.softmax(logits)
    if name == "mean_squared_error":
        return ((truth - given) ** 2).mean(-1)
    if name == "categorical_focal_crossentropy":
        given = jnp.clip(given, EPSILON, 1 - EPSILON)
        return -(FOCAL_ALPHA * (1 - given) ** FOCAL_GAMMA * truth * jnp.log(given)).sum(-1)
    if name == "kl_divergence":
        truth, given = jnp.clip(truth, EPSILON, 1), jnp.clip(given, EPSILON, 1)
        return (truth * jnp.log(truth / given)).sum(-1)
    raise ValueError(f"loss {name!r} is not compiled")


def penalty(shape: Shape, weights: Sequence[Array], l1: Array, l2: Array) -> Array:
    """What the regularisers of the convolutions' kernels add to the loss."""
    kernels = (w for w, v in zip(weights, shape.variables(), strict=True) if v.kind == "conv")
    blocks = (i for i in range(shape.blocks) for _ in range(shape.convs[i]))
    return sum(l1[i] * _size(w).sum() + l2[i] * (w * w).sum() for i, w in zip(blocks, kernels, strict=True))


def _size(w: Array) -> Array:
    """|w|, with a gradient of 0 at 0: JAX's own has 1 there, which would wake weights that are none (`wide`)."""
    return w * jax.lax.stop_gradient(jnp.sign(w))
