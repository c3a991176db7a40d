"""Augmentation inside the compiled program: each kind is the Keras layer's, draws follow from seed, epoch and step alone."""

from unittest import mock

import keras
import numpy as np
import pytest

pytest.importorskip("jax")

import jax  # noqa: E402
import jax.numpy as jnp  # noqa: E402
from class_images import class_images  # noqa: E402

from imgclf_sweep import Choice, Fixed, Float, SearchSpace, Sweep, datasets  # noqa: E402
from imgclf_sweep.data.preprocess import Affine  # noqa: E402
from imgclf_sweep.models import knobs  # noqa: E402
from imgclf_sweep.models.augment import augmentation  # noqa: E402
from imgclf_sweep.models.cnn import build_cnn  # noqa: E402
from imgclf_sweep.models.shared_knobs import AUGMENTATION  # noqa: E402
from imgclf_sweep.sweep import Objective  # noqa: E402
from imgclf_sweep.training.compiled import CompiledTrainer  # noqa: E402
from imgclf_sweep.training.images import fitted, load  # noqa: E402
from imgclf_sweep.training.lanes import augment  # noqa: E402
from imgclf_sweep.training.lanes.hashed import key_of, shuffled  # noqa: E402
from imgclf_sweep.training.lanes.lanes import Lanes, compile_program, to_device  # noqa: E402
from imgclf_sweep.training.lanes.shape import inputs_of, shape_of  # noqa: E402
from imgclf_sweep.training.lanes.state import asked, resident  # noqa: E402
from imgclf_sweep.training.protocol import Job, Reply, Setup  # noqa: E402
from imgclf_sweep.training.serving import serving_model  # noqa: E402
from imgclf_sweep.training.weights import BEST_ARRAYS, load_weights  # noqa: E402
from imgclf_sweep.trial import State, Suggestion  # noqa: E402

ALL = {"rotation": 25, "width_shift": 0.2, "height_shift": 0.1, "horizontal_flip": True, "shear": 0.3, "zoom": 0.2}
SHIFTS = {name: ALL[name] for name in ("width_shift", "height_shift")}
IMAGE, CLASSES, TRAIN, HELD, BATCH = (9, 8, 2), 4, 70, 30, 16
NET = {"filters": 5, "dense_units": 7, "dropout": 0.2, "learning_rate": 0.01}
BEST = Objective("val_loss", "min")
SCALE = Affine((0.01, 0.02), (-1.0, -0.5))
SPARSE = "sparse_categorical_crossentropy"
X, Y, HELD_X, HELD_Y = class_images(IMAGE, CLASSES, TRAIN, HELD)
DATA = to_device(X, Y, SCALE, (HELD_X, HELD_Y))


def strengths(**params):
    return jnp.asarray(inputs_of(knobs.resolve(params), 1).arrays()["augmentation"])


def draws(count):
    return np.random.default_rng(1).uniform(size=(augment.DRAWS, count)).astype("float32")


def given(layer, drawn, shape):
    """What Keras's layer would have drawn for images of `shape` (B, H, W, C), from the same numbers."""
    count, height, width, _ = shape
    either = 2 * drawn - 1
    if layer.name == "rotation":
        still = np.zeros(count, "float32")
        moves = {"translate_x": still, "translate_y": still, "shear_x": still, "shear_y": still, "scale": still + 1}
        angle = keras.ops.convert_to_tensor(either[0] * layer.factor[1] * 360)
        matrix = layer._compute_affine_matrix(
            center_x=0.5, center_y=0.5, angle=angle, height=height, width=width, **moves
        )
        return {"rotation_matrix": matrix}
    if layer.name == "shift":
        across, along = either[2] * layer.width_upper * width, either[1] * layer.height_upper * height
        return {"translations": keras.ops.convert_to_tensor(np.stack([across, along], 1))}
    if layer.name == "horizontal_flip":
        return {"flips": (drawn[3] < 0.5)[:, None, None, None]}
    if layer.name == "shear":
        low, high = layer.x_factor
        slant = (low + drawn[4] * (high - low)) * np.where(drawn[5] < 0.5, 1, -1)
        return {"shear_factor": keras.ops.convert_to_tensor(np.stack([slant, 0 * slant], 1).astype("float32"))}
    return {
        "height_zoom": keras.ops.convert_to_tensor(1 + either[6] * layer.height_upper)[:, None],
        "width_zoom": keras.ops.convert_to_tensor(1 + either[7] * layer.width_upper)[:, None],
    }


def by_keras(params, images, drawn):
    x = images.astype("float32")
    for layer in augmentation(knobs.resolve(params)):
        x = keras.ops.convert_to_numpy(layer.transform_images(x, given(layer, drawn, images.shape), training=True))
    return x


def by_program(params, images, drawn):
    with mock.patch.object(augment, "uniform", lambda key, shape: jnp.asarray(drawn).reshape(shape)):
        return np.asarray(augment.augmented(jnp.asarray(images), strengths(**params), key_of(0)))


@pytest.mark.parametrize("size", [(12, 9, 3), (8, 8, 1), (1, 5, 2)])
@pytest.mark.parametrize("params", [{n: v} for n, v in ALL.items()] + [SHIFTS, {"zoom": 0.9}, {"rotation": 180}])
def test_each_kind_alone_is_the_keras_layer(params, size):
    images = np.random.default_rng(2).integers(0, 256, (20, *size), dtype=np.uint8)
    drawn = draws(20)
    found, wanted = by_program(params, images, drawn), by_keras(params, images, drawn)
    np.testing.assert_allclose(found / 255, wanted / 255, atol=1e-4)
    if min(size[:2]) > 1:
        assert np.abs(found - images).max() > 10  # something was done


def test_of_several_the_order_is_that_of_the_layers():
    """On a slope, which sampling in between does not blur, away from the border, where the two differ."""
    rows, columns = np.indices((61, 51))
    slope = np.repeat((2 * rows + 2.5 * columns)[None, :, :, None].astype(np.uint8), 30, 0)
    params = {**ALL, "rotation": 15, "width_shift": 0.1, "shear": 0.1, "zoom": 0.1}
    drawn = draws(30)
    found, wanted = by_program(params, slope, drawn), by_keras(params, slope, drawn)
    middle = (slice(None), slice(25, 36), slice(20, 31))
    np.testing.assert_allclose(found[middle], wanted[middle], atol=1.0)  # the slope itself is rounded to whole numbers
    transforms = augment.transforms
    with mock.patch.object(augment, "transforms", lambda *given: transforms(*given)[::-1]):
        assert np.abs(by_program(params, slope, drawn)[middle] - wanted[middle]).max() > 5  # in another order it is not


def test_strengths_of_zero_leave_images_as_they_were():
    images = np.random.default_rng(0).integers(0, 256, (50, 11, 6, 3), dtype=np.uint8)
    found = jax.jit(augment.augmented)(images, strengths(), key_of(1, 2, 3))
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, images)


def test_draws_go_as_far_as_said_and_are_the_key_s_alone():
    every = jax.jit(augment.augmented)
    images = np.random.default_rng(0).integers(0, 256, (400, 8, 8, 1), dtype=np.uint8)
    one, again, other = (np.asarray(every(images, strengths(**ALL), key_of(7, 1, step))) for step in (1, 1, 2))
    np.testing.assert_array_equal(one, again)
    assert (np.abs(one - other).max(axis=(1, 2, 3)) > 1).mean() > 0.99
    flipped = np.asarray(every(images, strengths(horizontal_flip=True), key_of(7, 1, 1)))
    mirrored = np.array([np.array_equal(a, b[:, ::-1]) for a, b in zip(flipped, images, strict=True)])
    assert 140 < mirrored.sum() < 260
    same = np.array([np.array_equal(a, b) for a, b in zip(flipped, images, strict=True)])
    assert (same ^ mirrored).all()
    ramp = np.broadcast_to(10 * np.arange(21, dtype=np.uint8)[:, None], (400, 21, 21))[..., None]
    moved = np.asarray(every(ramp, strengths(height_shift=0.2), key_of(7, 1, 1)))[:, 10, 10, 0] / 10 - 10
    assert -4.2 <= moved.min() < -3.9 and 3.9 < moved.max() <= 4.2 and abs(moved.mean()) < 0.5  # 0.2 of 21 pixels


def shape(params, **changes):
    parts = {"batch": BATCH, "train": TRAIN, "validation": HELD, **changes}
    return shape_of(knobs.resolve(params), image=IMAGE, classes=CLASSES, loss=SPARSE, **parts)


def lanes_of(program, several):
    """Lanes of `program` that hold configurations with seeds of their own; None leaves one idle."""
    lanes = Lanes(program, DATA, BEST)
    for lane, trial in enumerate(several):
        if trial is not None:
            params, seed = trial
            lanes.set_lane(lane, inputs_of(knobs.resolve(params), seed))
    return lanes


@pytest.fixture(scope="module")
def alone():
    return compile_program(shape({**NET, **ALL}), 1)


@pytest.fixture(scope="module")
def four():
    return compile_program(shape({**NET, **ALL}), 4)


def test_a_lane_sees_the_same_images_whatever_lies_beside_it(alone, four):
    trials = [
        ({**NET, **ALL}, 1),
        ({**NET, "rotation": 40}, 2),
        ({**NET, "horizontal_flip": True, "zoom": 0.3}, 3),
        (NET, 4),
    ]
    wanted = []
    for trial in trials:
        lanes = lanes_of(alone, [trial])
        wanted.append([lanes.epoch()[0] for _ in range(3)])
    for order in ((0, 1, 2, 3), (3, 2, 0, 1)):
        lanes = lanes_of(four, [trials[number] for number in order])
        for epoch in range(3):
            found = lanes.epoch()
            for lane, number in enumerate(order):
                assert found[lane] == pytest.approx(wanted[number][epoch], rel=1e-4)


def test_a_trial_of_zero_strengths_is_the_one_of_a_program_without_augmentation(alone):
    plain = lanes_of(compile_program(shape(NET), 1), [(NET, 5)])
    zero, changed = (lanes_of(alone, [(params, 5)]) for params in (NET, {**NET, **ALL}))
    for _ in range(2):
        wanted = plain.epoch()[0]
        assert zero.epoch()[0] == pytest.approx(wanted, rel=1e-5)
        assert changed.epoch()[0]["loss"] != pytest.approx(wanted["loss"], rel=1e-3)


def test_validation_images_are_left_alone_and_keras_measures_the_same(alone):
    params = {**NET, **ALL}
    lanes = lanes_of(alone, [(params, 6)])
    measured = [lanes.epoch()[0] for _ in range(3)]
    best = min(measured, key=lambda m: m["val_loss"])
    model = build_cnn(params, IMAGE, CLASSES, SPARSE)
    model.set_weights(lanes.lane_weights(0))
    loss, accuracy = model.evaluate(SCALE.apply(HELD_X), HELD_Y, verbose=0)
    assert (loss, accuracy) == pytest.approx((best["val_loss"], best["val_accuracy"]), rel=1e-4)


def test_an_epoch_fits_the_images_that_its_draws_make():
    """One step over all images, without dropout: its loss is Keras's of the images made by the step's own key."""
    params = {**NET, **ALL, "dropout": 0.0}
    program = compile_program(shape(params, batch=TRAIN), 1)
    lanes = lanes_of(program, [(params, 8)])
    model = build_cnn({**NET, "dropout": 0.0}, IMAGE, CLASSES, SPARSE)
    for epoch in (1, 2):
        model.set_weights(lanes.lane_weights(0, best=False))
        order = np.asarray(shuffled(key_of(8, epoch, 0), TRAIN))
        made = np.asarray(augment.augmented(jnp.asarray(X[order]), strengths(**ALL), key_of(8, epoch, 1)))
        loss, accuracy = model.evaluate(
            made * np.float32(SCALE.scale) + np.float32(SCALE.offset), Y[order], batch_size=TRAIN, verbose=0
        )
        found = lanes.epoch()[0]
        assert (found["loss"], found["accuracy"]) == pytest.approx((loss, accuracy), rel=1e-4)


def test_a_resumed_trial_goes_on_with_the_images_it_would_have_had(four, alone):
    params = {**NET, **ALL}
    whole = lanes_of(alone, [(params, 9)])
    wanted = [whole.epoch()[0] for _ in range(4)]
    torn = lanes_of(four, [None, None, (params, 9)])
    for _ in range(2):
        torn.epoch()
    kept = torn.lane_state(2)
    later = lanes_of(alone, [])
    later.resume_lane(0, inputs_of(knobs.resolve(params), 9), kept)
    for epoch in wanted[2:]:
        assert later.epoch()[0] == pytest.approx(epoch, rel=1e-4)


def sweep(**space):
    return Sweep(datasets.digits(), space=SearchSpace(filters=2, dense_units=8, **space), batch_size=32, epochs=2)


def test_whether_a_space_can_augment_decides_the_program_and_the_strengths_do_not(digits, tmp_path):
    spaces = {
        "searched": sweep(rotation=Float(0, 20), zoom=Float(0, 0.2)),
        "off": sweep(rotation=Fixed(0), horizontal_flip=Choice([False])),
        "without": sweep(),
    }
    found = {}
    for name, declared in spaces.items():
        setup = Setup(declared, str(digits.path), 120, "compiled")
        images = resident(setup, "train")
        found[name] = {
            asked(setup, Job(Suggestion(0, params, 2), "token", 1, str(tmp_path)), images)[0].augmented
            for params in declared.space.grid()
        }
    assert found == {"searched": {True}, "off": {False}, "without": {False}}


def test_what_is_kept_is_the_plain_keras_model_with_its_layers(digits, tmp_path):
    space = {name: Float(0, value) for name, value in ALL.items() if name != "horizontal_flip"}
    declared = sweep(**space, horizontal_flip=Choice([True, False]))
    setup = Setup(declared, str(digits.path), 120, "compiled")
    params = {"filters": 2, "dense_units": 8, **ALL}
    job = Job(Suggestion(0, params, 2), "token", 3, str(tmp_path))
    heard = []
    outcome = CompiledTrainer(setup).train(job, lambda m: heard.append(m) or Reply.GO)
    assert outcome.state is State.COMPLETE and outcome.epochs == 2
    images = load(setup, "train")
    model = build_cnn(params, images.shape, images.classes, SPARSE)
    load_weights(model, tmp_path / BEST_ARRAYS)
    names = [layer.name for layer in model.layers]
    assert names[1:6] == ["rotation", "shift", "horizontal_flip", "shear", "zoom"]
    measured = model.evaluate(images.validation_x, images.validation_y, verbose=0, return_dict=True)
    assert measured["accuracy"] == pytest.approx(outcome.value)
    chosen = fitted(setup, "train")
    serving_model(model, chosen.affine, images.shape).save(tmp_path / "model.keras")
    served = keras.models.load_model(tmp_path / "model.keras", safe_mode=True)
    assert {layer.name for layer in served.layers} >= set(names[1:6])
    answers = served.predict(chosen.x[chosen.validation], verbose=0).argmax(axis=1)
    assert (answers == chosen.y[chosen.validation]).mean() == pytest.approx(outcome.value)


def test_the_strengths_are_in_the_order_of_their_knobs():
    names = [*AUGMENTATION]
    for at, name in enumerate(names):
        wanted = np.zeros(len(names), "float32")
        wanted[at] = float(ALL[name])
        np.testing.assert_array_equal(strengths(**{name: ALL[name]}), wanted)
