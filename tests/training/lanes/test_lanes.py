"""The compiled program against Keras itself, and its lanes against the same trials trained alone."""

import subprocess
import sys

import numpy as np
import pytest

pytest.importorskip("jax")

import jax  # noqa: E402
import jax.numpy as jnp  # noqa: E402
import keras  # noqa: E402

from imgclf_sweep.data.preprocess import Affine  # noqa: E402
from imgclf_sweep.errors import BadInput  # noqa: E402
from imgclf_sweep.models import knobs  # noqa: E402
from imgclf_sweep.models.cnn import build_cnn  # noqa: E402
from imgclf_sweep.sweep import LOSSES, Objective  # noqa: E402
from imgclf_sweep.training.lanes import hashed, init, steps  # noqa: E402
from imgclf_sweep.training.lanes.conv import CONVS  # noqa: E402
from imgclf_sweep.training.lanes.lanes import Lanes, Programs, compile_program, to_device, use_cache  # noqa: E402
from imgclf_sweep.training.lanes.net import losses  # noqa: E402
from imgclf_sweep.training.lanes.shape import LEARNING_RATES, inputs_of, shape_of  # noqa: E402

IMAGE, CLASSES, TRAIN, HELD, BATCH = (9, 8, 2), 4, 70, 30, 16  # 4 whole batches and one of 6
BEST = Objective("val_accuracy", "max")
SCALE = Affine((0.01, 0.02), (-1.0, -0.5))
PLAIN = {"filters": 5, "dense_units": 7}
DEEP = {
    "filters": [4, 6],
    "convs": [2, 1],
    "kernel_size": [2, 3],
    "padding": ["same", "valid"],
    "batch_norm": [True, False],
    "pool_size": [2, 1],
    "dense_units": 8,
    "dense_batch_norm": True,
    "classes": 5,
    "l1": [0.001, 0.0],
    "l2": [0.0, 0.01],
}


def images(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Images whose brightness tells the class, noisily."""
    random = np.random.default_rng(seed)
    y = random.integers(0, CLASSES, count)
    return np.clip(random.normal(60 + 40 * y[:, None, None, None], 60, (count, *IMAGE)), 0, 255).astype(np.uint8), y


X, Y = images(TRAIN, 1)
HELD_X, HELD_Y = images(HELD, 2)
DATA = to_device(X, Y, SCALE, (HELD_X, HELD_Y))


def shape(params: dict, loss: str = "sparse_categorical_crossentropy", **changes):
    asked = {"image": IMAGE, "classes": CLASSES, "loss": loss, "batch": BATCH, "train": TRAIN, "validation": HELD}
    return shape_of(knobs.resolve(params), **{**asked, **changes})


def inputs(params: dict, seed: int = 3):
    return inputs_of(knobs.resolve(params), seed)


def targets(model: keras.Model, loss: str, y: np.ndarray) -> np.ndarray:
    return y if LOSSES[loss] else np.eye(model.output_shape[-1], dtype="float32")[y]


def alone(params: dict, epochs: int, seed: int = 3) -> tuple[list[dict], list[np.ndarray]]:
    lanes = Lanes(compile_program(shape(params), 1), DATA, BEST)
    lanes.set_lane(0, inputs(params, seed))
    return [lanes.epoch()[0] for _ in range(epochs)], lanes.lane_weights(0)


def assert_same(found: list[dict], wanted: list[dict]) -> None:
    for epoch, other in zip(found, wanted, strict=True):
        assert epoch == pytest.approx(other, rel=1e-4)


@pytest.mark.parametrize(
    ("params", "conv"),
    [(PLAIN, "patches"), *((DEEP, conv) for conv in CONVS), ({**DEEP, "optimizer": "sgd"}, "patches")],
)
def test_an_epoch_is_what_keras_fit_does(params, conv):
    """From the same weights, in the same order, without dropout: the last short batch, statistics and penalties included."""
    keras.utils.set_random_seed(1)
    loss = "sparse_categorical_crossentropy"
    program = compile_program(shape(params), 1, conv)
    lanes = Lanes(program, DATA, BEST)
    model = build_cnn(params, IMAGE, CLASSES, loss)
    lanes.set_lane(0, inputs(params), model.get_weights())
    for epoch in (1, 2):
        order = np.asarray(hashed.shuffled(hashed.key_of(3, epoch, 0), TRAIN))
        assert sorted(order) == list(range(TRAIN))
        history = model.fit(
            SCALE.apply(X[order]),
            Y[order],
            validation_data=(SCALE.apply(HELD_X), HELD_Y),
            batch_size=BATCH,
            shuffle=False,
            verbose=0,
        )
        wanted = {name: values[0] for name, values in history.history.items()}
        assert lanes.epoch()[0] == pytest.approx(wanted, rel=1e-4)
    for found, wanted in zip(lanes.lane_weights(0, best=False), model.get_weights(), strict=True):
        np.testing.assert_allclose(found, wanted, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("name", ["sparse_categorical_crossentropy", "binary_crossentropy"])
def test_the_best_epoch_measures_as_the_keras_model_with_the_same_weights(name):
    params = {**DEEP, "dropout": 0.3, "dense_dropout": 0.2}
    lanes = Lanes(compile_program(shape(params, name), 2), DATA, Objective("val_loss", "min"))
    lanes.set_lane(1, inputs(params))
    measured = [lanes.epoch()[1] for _ in range(3)]
    best = min(measured, key=lambda m: m["val_loss"])
    model = build_cnn(params, IMAGE, CLASSES, name)
    model.set_weights(lanes.lane_weights(1))
    loss, accuracy = model.evaluate(SCALE.apply(HELD_X), targets(model, name, HELD_Y), verbose=0)
    assert (loss, accuracy) == pytest.approx((best["val_loss"], best["val_accuracy"]), rel=1e-4)


@pytest.mark.parametrize("name", LOSSES)
def test_losses_are_those_of_keras(name):
    random = np.random.default_rng(0)
    logits = (random.normal(size=(50, CLASSES)) * 3).astype("float32")
    logits[0] = (30, 0, 0, 0)  # where clipping would matter
    y = random.integers(0, CLASSES, 50)
    y[0] = 1
    truth = y if LOSSES[name] else np.eye(CLASSES, dtype="float32")[y]
    given = keras.activations.softmax(keras.ops.convert_to_tensor(logits))
    wanted = keras.ops.convert_to_numpy(getattr(keras.losses, name)(truth, given))
    np.testing.assert_allclose(np.asarray(losses(name, jnp.asarray(logits), y)), wanted, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    "params",
    [{"optimizer": name} for name in LEARNING_RATES]
    + [{"optimizer": name, "momentum": 0.8, "learning_rate": 0.003} for name in knobs.WITH_MOMENTUM],
)
def test_update_rules_are_those_of_keras(params):
    random = np.random.default_rng(0)
    start = random.normal(size=20).astype("float32")
    optimizer = build_cnn(params, IMAGE, CLASSES, "mean_squared_error").optimizer
    variable = keras.Variable(start)
    optimizer.build([variable])
    arrays = {name: jnp.asarray(value) for name, value in inputs(params).arrays().items()}
    weight, first, second, product = jnp.asarray(start), jnp.zeros(20), jnp.zeros(20), jnp.ones(())
    for step in range(8):
        gradient = (random.normal(size=20) * 10.0 ** random.integers(-6, 3, 20)).astype("float32")
        optimizer.apply([keras.ops.convert_to_tensor(gradient)])
        scalars, product = steps.schedule(arrays, jnp.int32(step), product)
        weight, first, second = steps.update(arrays, scalars, weight, gradient, first, second)
        wanted = keras.ops.convert_to_numpy(variable.value)
        np.testing.assert_allclose(np.asarray(weight) - start, wanted - start, rtol=1e-4, atol=1e-6)


def test_lanes_train_as_alone_whatever_lies_beside_them():
    trials = [
        {**DEEP, "dropout": [0.2, 0.0], "dense_dropout": 0.5, "optimizer": "adam", "learning_rate": 0.003},
        {**DEEP, "dropout": [0.4, 0.1], "dense_dropout": 0.1, "optimizer": "sgd", "momentum": 0.9, "l1": [0.01, 0.02]},
        {**DEEP, "dropout": [0.3, 0.3], "dense_dropout": 0.3, "optimizer": "rmsprop"},
        {**DEEP, "dropout": [0.1, 0.2], "dense_dropout": 0.2, "optimizer": "nadam"},
    ]
    dropouts = (True, True, True)
    one, four = (compile_program(shape(DEEP, dropout=dropouts), k) for k in (1, 4))
    wanted = []
    for number, params in enumerate(trials):
        lanes = Lanes(one, DATA, BEST)
        lanes.set_lane(0, inputs(params, seed=number))
        wanted.append(([lanes.epoch()[0] for _ in range(4)], lanes.lane_weights(0)))
    for order in ((0, 1, 2, 3), (3, 2, 0, 1)):
        lanes = Lanes(four, DATA, BEST)
        for lane, number in enumerate(order):
            lanes.set_lane(lane, inputs(trials[number], seed=number))
        epochs = [lanes.epoch() for _ in range(4)]
        for lane, number in enumerate(order):
            assert_same([epoch[lane] for epoch in epochs], wanted[number][0])
            for a, b in zip(lanes.lane_weights(lane), wanted[number][1], strict=True):
                np.testing.assert_allclose(a, b, rtol=1e-3, atol=5e-4)


def test_a_diverged_lane_disturbs_no_other_and_can_be_refilled():
    params = {**PLAIN, "optimizer": "sgd"}
    wanted, _ = alone(params, 3)
    lanes = Lanes(compile_program(shape(params), 3), DATA, BEST)
    lanes.set_lane(0, inputs({**params, "learning_rate": 1e30}))
    lanes.set_lane(1, inputs(params))
    first, second = lanes.epoch(), lanes.epoch()
    assert not np.isfinite(second[0]["loss"])
    assert second[2] is None
    lanes.set_lane(0, inputs(params))  # one epoch behind lane 1 from here on
    third, fourth, fifth = (lanes.epoch() for _ in range(3))
    assert_same([first[1], second[1], third[1]], wanted)
    assert_same([third[0], fourth[0], fifth[0]], wanted)


def test_best_weights_are_those_of_the_best_epoch_and_stay_when_a_lane_stops():
    params = {**PLAIN, "optimizer": "sgd", "learning_rate": 0.5}  # coarse: the last epoch is not the best
    lanes = Lanes(compile_program(shape(params), 2), DATA, BEST)
    for lane in (0, 1):
        lanes.set_lane(lane, inputs(params, seed=lane))
    kept: list[tuple[float, list[np.ndarray]]] = []
    for _ in range(6):
        value = lanes.epoch()[1]["val_accuracy"]
        kept.append((value, lanes.lane_weights(1, best=False)))
    values = [value for value, _ in kept]
    best = values.index(max(values))
    assert best < 5
    lanes.stop_lane(1)
    assert lanes.active == [0]
    assert lanes.epoch()[1] is None
    for a, b in zip(lanes.lane_weights(1), kept[best][1], strict=True):
        np.testing.assert_array_equal(a, b)


def test_without_a_validation_part_the_last_epoch_counts():
    program = compile_program(shape(PLAIN, validation=0), 2)
    lanes = Lanes(program, to_device(X, Y, SCALE), BEST)
    lanes.set_lane(0, inputs({**PLAIN, "learning_rate": 0.3}))
    for _ in range(4):
        assert set(lanes.epoch()[0]) == {"loss", "accuracy"}
        for a, b in zip(lanes.lane_weights(0), lanes.lane_weights(0, best=False), strict=True):
            np.testing.assert_array_equal(a, b)


def test_dropout_is_of_the_asked_rate_and_rate_zero_shares_the_program():
    program = compile_program(shape({**PLAIN, "dropout": 0.5}), 2)
    lanes = Lanes(program, DATA, BEST)
    lanes.set_lane(0, inputs(PLAIN))
    lanes.set_lane(1, inputs({**PLAIN, "dropout": 0.9}))
    without, much = lanes.epoch()
    assert without == pytest.approx(alone(PLAIN, 1)[0][0], rel=1e-4)
    assert much["loss"] > without["loss"]


def test_a_lane_takes_no_weights_of_another_network_and_has_none_before_a_trial():
    lanes = Lanes(compile_program(shape(PLAIN), 1), DATA, BEST)
    with pytest.raises(ValueError, match="never had a trial"):
        lanes.lane_weights(0)
    with pytest.raises(ValueError, match="another network"):
        lanes.set_lane(0, inputs(PLAIN), [np.zeros((2, 2))])


@pytest.mark.parametrize("count", [1, 3])
def test_a_lane_goes_on_from_its_kept_state_as_if_it_had_never_stopped(count):
    params = {**DEEP, "dropout": 0.3, "optimizer": "nadam"}
    program, last = compile_program(shape(params), count), count - 1
    lanes = Lanes(program, DATA, BEST)
    lanes.set_lane(last, inputs(params))
    whole = [lanes.epoch()[last] for _ in range(5)]
    torn = Lanes(program, DATA, BEST)
    torn.set_lane(last, inputs(params))
    for _ in range(2):
        torn.epoch()
    kept = torn.lane_state(last)
    torn.epoch()  # what was kept is no view of what is trained on
    other = Lanes(program, DATA, BEST)
    other.resume_lane(0, inputs(params), kept)
    assert [other.epoch()[0] for _ in range(3)] == [pytest.approx(epoch, rel=1e-6) for epoch in whole[2:]]
    for a, b in zip(other.lane_weights(0), lanes.lane_weights(last), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)
    with pytest.raises(ValueError, match="not the network's"):
        other.resume_lane(0, inputs(params), {**kept, "step": np.zeros(2)})


@pytest.mark.parametrize("initializer", knobs.INITIALIZERS)
def test_weights_start_as_keras_starts_them_and_differ_by_seed(initializer):
    params = {"filters": 30, "dense_units": 200, "kernel_size": 2, "kernel_initializer": initializer}
    model = build_cnn(params, IMAGE, CLASSES, "mean_squared_error")
    one, two = (init.fresh(shape(params), initializer, seed) for seed in (1, 2))
    for mine, other, theirs in zip(one, two, model.get_weights(), strict=True):
        assert (mine.shape, mine.dtype) == (theirs.shape, theirs.dtype)
        np.testing.assert_allclose(np.abs(mine).max(), np.abs(theirs).max(), rtol=0.1)
        np.testing.assert_allclose(np.std(mine), np.std(theirs), rtol=0.1)
        assert not theirs.any() or not np.array_equal(mine, other)


def test_weights_are_drawn_by_the_hash_that_the_program_draws_by():
    drawn = hashed.uniform(hashed.key_of(2**32 - 1), (50,))
    np.testing.assert_array_equal(init.uniform(2**32 - 1, 50), np.asarray(drawn))


def test_random_numbers_are_uniform_independent_and_the_same_in_any_lane():
    keys = jax.vmap(lambda seed: hashed.key_of(seed, 5, 6))(jnp.arange(200))
    drawn = np.asarray(jax.vmap(lambda key: hashed.uniform(key, (50, 40)))(keys)).reshape(200, -1)
    np.testing.assert_array_equal(drawn[7], np.asarray(hashed.uniform(keys[7], (2000,))))
    counts, _ = np.histogram(drawn, 100, (0, 1))
    assert ((counts - 4000) ** 2 / 4000).sum() < 160  # chi-squared, 99 degrees of freedom: 1 in 10,000
    across, along = np.corrcoef(drawn)[np.triu_indices(200, 1)], np.corrcoef(drawn.T)[np.triu_indices(300, 1)]
    assert abs(across).max() < 0.13 and abs(across.std() - 2000**-0.5) < 0.002  # 6 deviations
    assert abs(along.std() - 200**-0.5) < 0.002


def test_programs_compile_a_shape_once_and_keep_it_on_disk(tmp_path):
    before = jax.config.jax_compilation_cache_dir
    try:
        use_cache(tmp_path)
        with Programs(threads=2) as programs:
            made = [programs.prepare(shape({**PLAIN, "dropout": 0.1 * i, "l2": 0.1}), 2) for i in (1, 2)]
            other = programs.prepare(shape({**PLAIN, "filters": 6}), 2)
            assert made[0].result() is made[1].result() is not other.result()
            assert programs.count == 2
        assert any(tmp_path.iterdir())
    finally:
        jax.config.update("jax_compilation_cache_dir", before)


def test_what_is_not_compiled_is_refused_in_one_line():
    with pytest.raises(BadInput, match="optimizer lion is not compiled, only adam, adamw"):
        inputs({"optimizer": "lion"})
    with pytest.raises(BadInput, match="too small for block 1"):
        shape({"kernel_size": 20})


def test_shapes_are_found_without_the_tensor_library():
    code = "import sys, imgclf_sweep.training.lanes.shape; assert not {'jax', 'keras', 'tensorflow'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
