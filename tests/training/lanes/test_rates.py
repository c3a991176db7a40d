"""What a step is expected to take: of the layers' own arithmetic, and of augmentation on either side."""

import pytest

from imgclf_sweep.models import knobs
from imgclf_sweep.training.lanes.rates import augmenting, multiply_adds
from imgclf_sweep.training.lanes.shape import shape_of


def test_multiply_adds_are_those_of_the_layers():
    params = {"filters": [4, 6], "convs": [1, 2], "kernel_size": [3, 2], "padding": "same", "dense_units": 7}
    shape = shape_of(
        knobs.resolve(params), image=(8, 8, 1), classes=10, loss="mean_squared_error", batch=9, train=9, validation=0
    )
    one, several = 8 * 8 * 9 * 4, 4 * 4 * 4 * 6 * (4 + 6)
    assert multiply_adds(shape) == (one + (2 * 2 * 6 + 10) * 7, several)


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
