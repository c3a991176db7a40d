"""Narrower networks in the program of a wider one: which share one, and that their numbers are those of their own program."""

from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("jax")

from imgclf_sweep import Choice, Float, Objective, SearchSpace, Sweep, datasets  # noqa: E402
from imgclf_sweep.data.preprocess import Affine  # noqa: E402
from imgclf_sweep.models import knobs  # noqa: E402
from imgclf_sweep.training.lanes.init import fresh  # noqa: E402
from imgclf_sweep.training.lanes.lanes import Lanes, compile_program, to_device  # noqa: E402
from imgclf_sweep.training.lanes.shape import LEARNING_RATES, inputs_of, shape_of  # noqa: E402
from imgclf_sweep.training.lanes.state import asked, resident  # noqa: E402
from imgclf_sweep.training.lanes.wide import embed, extract, holds, own, programs  # noqa: E402
from imgclf_sweep.training.protocol import Job, Setup  # noqa: E402
from imgclf_sweep.trial import Suggestion  # noqa: E402

NARROW = {
    "filters": [3, 4],
    "convs": [2, 1],
    "kernel_size": 2,
    "batch_norm": [True, False],
    "pool_size": [2, 1],
    "dense_units": 6,
    "dense_batch_norm": True,
    "l1": 0.001,
    "l2": 0.01,
}
WIDE = {**NARROW, "filters": [5, 7], "dense_units": 9}


def shape(params, image=(9, 8, 2), train=70, batch=16, **more):
    settings = {"image": image, "classes": 4, "loss": "sparse_categorical_crossentropy", "validation": 30, **more}
    return shape_of(knobs.resolve(params), train=train, batch=batch, **settings)


def six(filters, dense_units, pool_size, image=(8, 8, 1), batch=64):
    params = {"filters": filters, "dense_units": dense_units, "pool_size": pool_size, "kernel_size": 2}
    return shape(params, image, train=1150, batch=batch)


def test_small_networks_share_programs_and_large_ones_have_their_own():
    every = [(f, u, p) for f in (16, 32, 64) for u in (256, 512) for p in (2, 4)]
    found = programs([six(*widths) for widths in every], epochs=10)
    assert len(found) == 12 and len(set(found.values())) < 6
    assert all(holds(wide, narrow) for narrow, wide in found.items())
    assert all(found[wide] == wide for wide in found.values())
    assert {wide.pool_size for wide in found.values()} == {(2,), (4,)}  # only widths can be made up for
    photos = [six(*widths, image=(100, 100, 3)) for widths in every]
    assert programs(photos, epochs=10) == {shape: shape for shape in photos}
    assert programs(reversed(photos), epochs=10) == programs(photos, epochs=10)


def test_what_holds_what():
    wide, narrow = shape(WIDE), shape(NARROW)
    assert holds(wide, narrow) and holds(wide, wide) and not holds(narrow, wide)
    assert not holds(wide, replace(narrow, filters=(6, 4)))
    assert not holds(wide, replace(narrow, batch=8))


def test_weights_come_back_from_a_wider_network_as_they_went():
    wide, narrow = shape(WIDE), shape(NARROW)
    weights = [w + 1 for w in fresh(narrow, "he_normal", 3)]
    inside = embed(weights, narrow, wide)
    assert [w.shape for w in inside] == [v.shape for v in wide.variables()]
    for found, given in zip(extract(inside, narrow, wide), weights, strict=True):
        np.testing.assert_array_equal(found, given)
    assert [np.count_nonzero(w) for w in inside][0] == weights[0].size


@pytest.mark.parametrize("optimizer", LEARNING_RATES)
def test_a_network_trained_in_a_wider_program_is_the_one_trained_in_its_own(optimizer):
    random = np.random.default_rng(0)
    y, held = random.integers(0, 4, 70), random.integers(0, 4, 30)
    x, held_x = (
        np.clip(random.normal(60 + 40 * labels[:, None, None, None], 60, (len(labels), 9, 8, 2)), 0, 255)
        for labels in (y, held)
    )
    scale = Affine((0.01, 0.02), (-1.0, -0.5))
    data = to_device(x.astype(np.uint8), y, scale, (held_x.astype(np.uint8), held))
    wide, narrow = shape(WIDE), shape(NARROW)
    inputs = inputs_of(knobs.resolve({**NARROW, "optimizer": optimizer}), 5)
    assert own(wide, inputs) == narrow
    best = Objective("val_accuracy", "max")
    alone, guest = (Lanes(compile_program(each, 1), data, best) for each in (narrow, wide))
    for lanes in (alone, guest):
        lanes.set_lane(0, inputs)
    for _ in range(3):
        assert guest.epoch()[0] == pytest.approx(alone.epoch()[0], rel=1e-4)
    for found, wanted in zip(guest.lane_weights(0), alone.lane_weights(0), strict=True):
        np.testing.assert_allclose(found, wanted, rtol=1e-3, atol=1e-5)
    state = [np.asarray(guest.lane_state(0)[f"weights/{i}"]) for i in range(len(wide.variables()))]
    back = embed(extract(state, narrow, wide), narrow, wide)
    for variable, found, wanted in zip(wide.variables(), state, back, strict=True):
        if variable.kind in ("conv", "dense", "zeros"):  # nothing has grown where the network ends
            np.testing.assert_array_equal(found, wanted)


def test_jobs_of_a_sweep_go_to_shared_programs_with_widths_of_their_own(digits, tmp_path):
    space = SearchSpace(filters=Choice([2, 4]), dense_units=Choice([4, 8]), dropout=Float(0.0, 0.5))
    setup = Setup(Sweep(dataset=datasets.digits(), space=space, epochs=2), str(digits.path), 120, "compiled")
    images = resident(setup, "train")
    jobs = [Job(Suggestion(0, params, 2), "token", 1, str(tmp_path)) for params in space.grid()]
    found = [asked(setup, job, images) for job in jobs]
    assert {(shape.filters, shape.dense_units) for shape, _ in found} == {((4,), 8)}
    assert {(inputs.filters, inputs.dense_units) for _, inputs in found} == {((f,), u) for f in (2, 4) for u in (4, 8)}
