"""Convolution with relu and pooling: values and gradients are Keras's, whichever form computes them, in parts of any size."""

import numpy as np
import pytest

jax = pytest.importorskip("jax")

import jax.numpy as jnp  # noqa: E402
import keras  # noqa: E402

from imgclf_sweep.training.lanes import conv  # noqa: E402
from imgclf_sweep.training.lanes.conv import CONVS, convolve_and_pool, max_pool  # noqa: E402


def given(kernel_size, channels, images=6):
    random = np.random.default_rng(0)
    shapes = (images, 9, 8, channels), (kernel_size, kernel_size, channels, 4), (4,)
    return [jnp.asarray(random.normal(size=shape), jnp.float32) for shape in shapes]


def windowed(x, size):
    return jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, (1, size, size, 1), (1, size, size, 1), "VALID")


def reference(x, kernel, bias, size, pool, same):
    """By XLA's own convolution and windows, of which the gradients are JAX's."""
    x = jax.lax.conv_general_dilated(
        x, kernel, (1, 1), "SAME" if same else "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    return windowed(jax.nn.relu(x + bias), pool)[:, : size[0], : size[1]]


def agree(found, wanted, arguments):
    weight = np.random.default_rng(1).normal(size=wanted(*arguments).shape).astype("float32")

    def both(f):
        value, back = jax.vjp(f, *arguments)
        return value, back(weight)

    one, other = (jax.jit(lambda f=f: both(f))() for f in (found, wanted))
    np.testing.assert_allclose(one[0], other[0], rtol=1e-4, atol=1e-5)
    for ours, theirs in zip(one[1], other[1], strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("how", CONVS)
@pytest.mark.parametrize("same", [True, False])
@pytest.mark.parametrize(("kernel_size", "channels"), [(2, 1), (3, 2)])
def test_values_and_gradients_agree_however_computed(kernel_size, channels, same, how):
    for pool, size in ((1, (6, 5)), (2, (3, 3)), (3, (2, 1))):
        agree(
            lambda *a, size=size, pool=pool: convolve_and_pool(*a, size, pool, same, how, False),
            lambda *a, size=size, pool=pool: reference(*a, size, pool, same),
            given(kernel_size, channels),
        )


@pytest.mark.parametrize("bytes_of_a_part", [1, 2000, 2**20])
@pytest.mark.parametrize(("kernel_size", "channels", "images"), [(2, 1, 6), (3, 3, 7), (3, 1, 1)])
def test_of_images_the_pooling_is_computed_along_in_parts_of_any_size(
    monkeypatch, kernel_size, channels, images, bytes_of_a_part
):
    monkeypatch.setattr(conv, "PART_BYTES", bytes_of_a_part)
    x, *weights = given(kernel_size, channels, images)
    for pool, size, same in ((2, (3, 3), False), (3, (3, 2), True)):
        agree(
            lambda k, b, _, size=size, pool=pool, same=same: convolve_and_pool(
                x, k, b, size, pool, same, "fused", True
            ),
            lambda k, b, _, size=size, pool=pool, same=same: reference(x, k, b, size, pool, same),
            [*weights, jnp.zeros(())],
        )


@pytest.mark.parametrize("pool", [conv.FUSED_POOL, conv.FUSED_POOL + 1, 12])
def test_of_images_the_pooling_may_be_of_any_size(pool):
    random = np.random.default_rng(0)
    x, kernel = (jnp.asarray(random.normal(size=size), jnp.float32) for size in ((4, 24, 24, 1), (3, 3, 1, 4)))
    size = (24 // pool, 24 // pool)
    agree(
        lambda k, b, _: convolve_and_pool(x, k, b, size, pool, True, "fused", True),
        lambda k, b, _: reference(x, k, b, size, pool, True),
        [kernel, jnp.zeros(4), jnp.zeros(())],
    )


@pytest.mark.parametrize("same", [True, False])
def test_the_convolution_is_keras_s(same):
    x, kernel, bias = given(4, 2)
    wanted = keras.ops.conv(x, kernel, padding="same" if same else "valid", data_format="channels_last")
    wanted = np.maximum(keras.ops.convert_to_numpy(wanted) + np.asarray(bias), 0)
    for how in CONVS:
        found = convolve_and_pool(x, kernel, bias, wanted.shape[1:3], 1, same, how, False)
        np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-5)


def test_of_equal_values_one_has_the_gradient():
    x, kernel, bias = jnp.ones((2, 5, 5, 1)), jnp.ones((2, 2, 1, 3)), jnp.ones(3)

    def total(kernel, image):
        return convolve_and_pool(x, kernel, bias, (2, 2), 2, False, "fused", image).sum()

    np.testing.assert_allclose(jax.grad(total)(kernel, True), jax.grad(total)(kernel, False))


@pytest.mark.parametrize("size", [2, 3])
def test_pooling_and_its_gradient_are_those_of_a_windowed_maximum(size):
    random = np.random.default_rng(0)
    x = jnp.asarray(random.normal(size=(3, 7, 8, 2)).astype("float32"))

    wanted = windowed(x, size)
    weight = random.normal(size=wanted.shape).astype("float32")
    np.testing.assert_array_equal(max_pool(x, size), wanted)
    found, other = (jax.grad(lambda x, f=f: (f(x, size) * weight).sum())(x) for f in (max_pool, windowed))
    np.testing.assert_array_equal(found, other)
