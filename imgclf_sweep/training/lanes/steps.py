"""One epoch of K trials of one shape as one JAX function: shuffling, steps, validation and the best weights' keeping.

Everything random follows from a lane's seed, its epoch and the step: neither K nor a lane's place changes its numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from .augment import augmented
from .hashed import key_of, shuffled
from .net import Array, Pass, losses, penalty
from .shape import ADAM_BETAS, EPSILON, Shape

NADAM_DECAY = 0.96  # of the momentum schedule: Dozat, "Incorporating Nesterov Momentum into Adam" (2016), as in Keras


class Data(NamedTuple):
    """On the device once, for all lanes. x: uint8 (N, H, W, C); y: int32 (N,); `x * scale + offset`, (C,), is what is fed."""

    x: Array
    y: Array
    validation_x: Array
    validation_y: Array
    scale: Array
    offset: Array

    def images(self, x: Array) -> Array:
        """Pixels in [0, 255] as they are fed, float32."""
        return x.astype(jnp.float32) * self.scale + self.offset


class Control(NamedTuple):
    """What the host says before an epoch.

    active: bool (K,), whose best weights may change.  metric: which of METRICS ranks epochs, -1 for the last one.
    sign: 1 to maximise, -1 to minimise.
    """

    active: Array
    metric: Array
    sign: Array


class State(NamedTuple):
    """The lanes' state, K first in every array. Lists follow `Shape.variables()`; the moments only those trained."""

    weights: list[Array]
    best: list[Array]
    first: list[Array]  # moments of the optimizer
    second: list[Array]
    product: Array  # nadam's product of momentums so far
    step: Array
    epoch: Array
    best_value: Array


def initial(weights: Sequence[np.ndarray], shape: Shape) -> State:
    """One lane before its first epoch, in NumPy."""
    given = [np.asarray(w, np.float32) for w in weights]
    zeros = [np.zeros_like(w) for w, v in zip(given, shape.variables(), strict=True) if v.trained]
    zero = np.zeros((), np.int32)
    return State(given, given, zeros, zeros, np.ones((), np.float32), zero, zero, np.full((), -np.inf, np.float32))


def like(shape: Shape, lanes: int | None = None) -> State:
    """The state's shapes and types: of one lane, or of K."""

    def array(size: tuple[int, ...], dtype: type = np.float32) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(size if lanes is None else (lanes, *size), dtype)

    variables = [array(v.shape) for v in shape.variables()]
    moments = [array(v.shape) for v in shape.variables() if v.trained]
    return State(variables, variables, moments, moments, array(()), *[array((), np.int32)] * 2, array(()))


def empty(shape: Shape, lanes: int) -> State:
    """The state of K idle lanes."""
    return jax.tree.map(lambda a: jnp.zeros(a.shape, a.dtype), like(shape, lanes))


def begin(state: State, at: Array, weights: Sequence[Array]) -> State:
    """`state` with lane `at` before its first epoch, as `initial` has it."""

    def put(arrays: list[Array], new: Sequence[Array | float]) -> list[Array]:
        return [a.at[at].set(n) for a, n in zip(arrays, new, strict=True)]

    none = [0.0] * len(state.first)
    moments = put(state.first, none), put(state.second, none)
    counts = put([state.product, state.step, state.epoch, state.best_value], [1.0, 0, 0, -np.inf])
    return State(put(state.weights, weights), put(state.best, weights), *moments, *counts)


def take(state: State, at: Array) -> State:
    """One lane's state."""
    return jax.tree.map(lambda a: a[at], state)


def epoch_of(shape: Shape, lanes: int, conv: str) -> Callable[..., tuple[State, Array]]:
    """`(state, inputs, control, data) -> (state, numbers (K, len(METRICS)))`: the function to compile."""

    def one(state: State, inputs: Mapping[str, Array], control: Control, data: Data) -> tuple[State, Array]:
        state, train = _train(shape, conv, state, inputs, data)
        validation = _validate(shape, conv, state.weights, inputs, data)
        numbers = jnp.concatenate([train, validation])
        return _keep_best(state, numbers, control), numbers

    def epoch(state: State, inputs: Mapping[str, Array], control: Control, data: Data) -> tuple[State, Array]:
        if lanes == 1:  # plain convolutions and products, not batches of one
            found = one(_first(state), _first(inputs), control._replace(active=control.active[0]), data)
            return jax.tree.map(lambda a: a[None], found)
        return jax.vmap(one, in_axes=(0, 0, Control(0, None, None), None))(state, inputs, control, data)

    return epoch


def _first(tree: Any) -> Any:
    return jax.tree.map(lambda a: a[0], tree)


def _keep_best(state: State, numbers: Array, control: Control) -> State:
    value = jnp.where(control.metric < 0, state.epoch.astype(jnp.float32), control.sign * numbers[control.metric])
    better = control.active & (value > state.best_value) & jnp.isfinite(value)
    best = [jnp.where(better, new, old) for new, old in zip(state.weights, state.best, strict=True)]
    return state._replace(best=best, best_value=jnp.where(better, value, state.best_value))


def _train(shape: Shape, conv: str, state: State, inputs: Mapping[str, Array], data: Data) -> tuple[State, Array]:
    """One epoch of one lane: its new state, and the mean loss and accuracy over its images as they were trained on."""
    epoch = 1 + state.epoch
    order = shuffled(key_of(inputs["seed"], epoch, 0), shape.train)
    whole = shape.train == shape.steps * shape.batch
    at = jnp.pad(order, (0, shape.steps * shape.batch - shape.train)).reshape(shape.steps, shape.batch)

    def step(carry: tuple[State, Array], this: tuple[Array, Array]) -> tuple[tuple[State, Array], None]:
        (state, sums), (number, at) = carry, this
        mask = None if whole else number * shape.batch + jnp.arange(shape.batch) < shape.train
        key = key_of(inputs["seed"], epoch, 1 + number)
        x = augmented(data.x[at], inputs["augmentation"], key) if shape.augmented else data.x[at]
        state, added = _step(shape, conv, state, inputs, (data.images(x), data.y[at]), key, mask)
        return (state, sums + added), None

    (state, sums), _ = jax.lax.scan(step, (state, jnp.zeros(2)), (jnp.arange(shape.steps), at))
    return state._replace(epoch=state.epoch + 1), sums / shape.train


def _step(
    shape: Shape,
    conv: str,
    state: State,
    inputs: Mapping[str, Array],
    batch: tuple[Array, Array],
    key: Array,
    mask: Array | None,
) -> tuple[State, Array]:
    """One step of one lane. Also the sums over the batch's real images of loss and correct answers, (2,)."""
    x, y = batch
    count = shape.batch if mask is None else mask.sum()
    trained = [v.trained for v in shape.variables()]

    def objective(learned: list[Array]) -> tuple[Array, tuple[list[Array], Array]]:
        given = iter(learned)
        weights = [next(given) if t else w for t, w in zip(trained, state.weights, strict=True)]
        run = Pass(shape, weights, inputs["dropout"], conv, key, mask)
        logits = run(x)
        each, right = losses(shape.loss, logits, y, inputs["smoothing"]), logits.argmax(-1) == y
        if mask is not None:
            each, right = jnp.where(mask, each, 0), right & mask
        loss = each.sum() / count + penalty(shape, weights, inputs["l1"], inputs["l2"])
        return loss, (run.weights, jnp.stack([loss * count, right.sum()]))

    learned = [w for t, w in zip(trained, state.weights, strict=True) if t]
    gradients, (weights, sums) = jax.grad(objective, has_aux=True)(learned)
    scalars, product = schedule(inputs, state.step, state.product)
    moved = [
        update(inputs, scalars, *arrays) for arrays in zip(learned, gradients, state.first, state.second, strict=True)
    ]
    given = iter(w for w, _, _ in moved)
    weights = [next(given) if t else w for t, w in zip(trained, weights, strict=True)]
    first, second = [m for _, m, _ in moved], [v for _, _, v in moved]
    return state._replace(weights=weights, first=first, second=second, step=state.step + 1, product=product), sums


def schedule(inputs: Mapping[str, Array], step: Array, product: Array) -> tuple[tuple[Array, Array, Array], Array]:
    """What of the update rule depends on the step: (factor of the first moment, of the gradient, epsilon), nadam's product."""
    now = (step + 1).astype(jnp.float32)
    beta1, beta2 = map(np.float32, ADAM_BETAS)
    rate, unbias = inputs["learning_rate"], jnp.sqrt(1 - beta2**now)
    adam = rate * unbias / (1 - beta1**now)
    momentum, later = (beta1 * (1 - 0.5 * NADAM_DECAY**n) for n in (now, now + 1))
    product = product * momentum
    nadam, direct = rate * unbias * later / (1 - product * later), rate * unbias * (1 - momentum) / (1 - product)
    first = jnp.where(inputs["nadam"], nadam, jnp.where(inputs["adam"], adam, 1.0))
    epsilon = EPSILON * jnp.where(inputs["nadam"], unbias, 1.0)
    return (first, jnp.where(inputs["nadam"], direct, 0.0), epsilon), product


def update(
    inputs: Mapping[str, Array],
    scalars: tuple[Array, Array, Array],
    weight: Array,
    gradient: Array,
    first: Array,
    second: Array,
) -> tuple[Array, Array, Array]:
    """(weight, first, second) after one step of Keras's adam, adamw, nadam, sgd or rmsprop, by `inputs`.

    Written as one rule: rmsprop divides the gradient by the root of the second moment before it enters the first one, the
    adams divide the first moment by it after, sgd nowhere. Weights decay before, each by the same part of itself.
    """
    factor, direct, epsilon = scalars
    second = inputs["rho"] * second + inputs["fresh"] * gradient * gradient
    scaled = jnp.where(inputs["rmsprop"], gradient * jax.lax.rsqrt(second + EPSILON), gradient)
    first = inputs["beta"] * first + inputs["gain"] * scaled
    change = factor * first + direct * gradient
    change = jnp.where(inputs["adam"], change / (jnp.sqrt(second) + epsilon), change)
    return weight - inputs["decay"] * weight - change, first, second


def _validate(shape: Shape, conv: str, weights: list[Array], inputs: Mapping[str, Array], data: Data) -> Array:
    """Mean loss and accuracy over the validation images, (2,), or (0,) where there are none."""
    if not shape.validation:
        return jnp.zeros(0)
    size = shape.validation_batch
    whole = size * shape.validation_steps == shape.validation

    def step(sums: Array, number: Array) -> tuple[Array, None]:
        at = number * size + jnp.arange(size)
        real = at < shape.validation
        at = at if whole else jnp.minimum(at, shape.validation - 1)
        y = data.validation_y[at]
        run = Pass(shape, weights, inputs["dropout"], conv, None, None)
        logits = run(data.images(data.validation_x[at]))
        each, right = losses(shape.loss, logits, y, inputs["smoothing"]), logits.argmax(-1) == y
        return sums + jnp.stack([jnp.where(real, each, 0).sum(), (right & real).sum()]), None

    sums, _ = jax.lax.scan(step, jnp.zeros(2), jnp.arange(shape.validation_steps))
    added = jnp.stack([penalty(shape, weights, inputs["l1"], inputs["l2"]), jnp.zeros(())])
    return sums / shape.validation + added
