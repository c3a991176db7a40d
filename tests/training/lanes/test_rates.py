"""What a step is expected to take: of the layers' own arithmetic, and of augmentation on either side."""

import pytest

from imgclf_sweep.models import knobs
from imgclf_sweep.training.lanes.rates import augmenting, multiply_adds, seconds
from imgclf_sweep.training.lanes.shape import shape_of


def test_multiply_adds_are_those_of_the_layers():
    params = {"filters": [4, 6], "convs": [1, 2], "kernel_size": [3, 2], "padding": "same", "dense_units": 7}
    shape = shape_of(
        knobs.resolve(params), image=(8, 8, 1), classes=10, loss="mean_squared_error", batch=9, train=9, validation=0
    )
    one, several = 8 * 8 * 9 * 4, 4 * 4 * 4 * 6 * (4 + 6)
    assert multiply_adds(shape) == ((2 * 2 * 6 + 10) * 7, one, several)


def test_the_cost_of_augmentation_is_counted_on_either_side():
    def step(params):
        net, parts = knobs.resolve(params), {"batch": 64, "train": 64, "validation": 0}
        shape = shape_of(net, image=(32, 32, 3), classes=10, loss="mean_squared_error", **parts)
        return augmenting(shape, net)

    none, flip, turn, shift = map(
        step, ({}, {"horizontal_flip": True}, {"rotation": 1}, {"width_shift": 0.1, "height_shift": 0.1, "zoom": 0.1})
    )
    assert none == (0, 0) and 0 < flip[0] < turn[0] < shift[0]
    assert shift[0] - flip[0] == pytest.approx(2 * (turn[0] - flip[0]))  # the shift and the zoom interpolate
    assert flip[1] == turn[1] == shift[1] > 0


@pytest.mark.parametrize(
    ("image", "batch", "params", "measured"),
    [
        ((32, 32, 1), 500, {"filters": 64, "dense_units": 512, "kernel_size": 2}, 1.72),
        ((32, 32, 1), 500, {"filters": 32, "dense_units": 256, "kernel_size": 2, "pool_size": 4}, 3.08),
        ((28, 28, 1), 32, {"filters": 32, "dense_units": 100, "kernel_size": 3}, 2.72),
        ((32, 32, 3), 64, {"filters": [32, 32, 64], "dense_units": 64, "kernel_size": 3}, 0.88),
        ((32, 32, 3), 128, {"filters": [16, 32, 64], "padding": "same", "kernel_size": 3}, 0.46),
        ((100, 100, 3), 64, {"filters": [32, 32], "dense_units": 64, "kernel_size": 3}, 0.72),
    ],
)
def test_the_ratio_of_the_trainers_is_about_that_measured(image, batch, params, measured):
    shape = shape_of(
        knobs.resolve(params),
        image=image,
        classes=10,
        loss="mean_squared_error",
        batch=batch,
        train=batch,
        validation=0,
    )
    fit, compiled = seconds(shape)
    assert measured / 1.6 < fit / compiled < measured * 1.6
