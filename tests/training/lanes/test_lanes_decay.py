"""Weight decay and label smoothing: inputs of the compiled program, and what they do is what Keras `fit` does."""

import keras
import numpy as np
import pytest

pytest.importorskip("jax")

from class_images import class_images  # noqa: E402

from imgclf_sweep.data.preprocess import Affine  # noqa: E402
from imgclf_sweep.errors import BadInput  # noqa: E402
from imgclf_sweep.models import knobs  # noqa: E402
from imgclf_sweep.models.cnn import build_cnn  # noqa: E402
from imgclf_sweep.models.shared_knobs import WITH_SMOOTHING  # noqa: E402
from imgclf_sweep.sweep import LOSSES, Objective  # noqa: E402
from imgclf_sweep.training.lanes import hashed  # noqa: E402
from imgclf_sweep.training.lanes.lanes import Lanes, Programs, to_device  # noqa: E402
from imgclf_sweep.training.lanes.shape import inputs_of, shape_of  # noqa: E402

IMAGE, CLASSES, TRAIN, HELD, BATCH, SEED = (8, 8, 1), 4, 70, 30, 16, 3
BEST = Objective("val_loss", "min")
SCALE = Affine((1 / 255,), (0.0,))
SPARSE = "sparse_categorical_crossentropy"
NET = {"filters": 5, "dense_units": 8, "l2": 0.01}
X, Y, HELD_X, HELD_Y = class_images(IMAGE, CLASSES, TRAIN, HELD)
DATA = to_device(X, Y, SCALE, (HELD_X, HELD_Y))


@pytest.fixture(scope="module")
def programs():
    with Programs(threads=1) as made:
        yield made


def shape(params, loss=SPARSE):
    parts = {"batch": BATCH, "train": TRAIN, "validation": HELD}
    return shape_of(knobs.resolve(params), image=IMAGE, classes=CLASSES, loss=loss, **parts)


def lanes_of(programs, several, loss=SPARSE):
    """Lanes that hold the configurations `several`, of one program."""
    shapes = {shape(params, loss) for params in several}
    assert len(shapes) == 1
    lanes = Lanes(programs.prepare(shapes.pop(), len(several)).result(), DATA, BEST)
    for lane, params in enumerate(several):
        lanes.set_lane(lane, inputs_of(knobs.resolve(params), SEED))
    return lanes


def fitted(model, epochs):
    """What Keras `fit` measures in each epoch, in the program's order of images."""
    one_hot = not isinstance(model.loss, str) or not LOSSES[model.loss]
    y, held = (np.eye(CLASSES, dtype="float32")[labels] if one_hot else labels for labels in (Y, HELD_Y))
    for epoch in range(1, epochs + 1):
        order = np.asarray(hashed.shuffled(hashed.key_of(SEED, epoch, 0), TRAIN))
        held_out = SCALE.apply(HELD_X), held
        history = model.fit(
            SCALE.apply(X[order]), y[order], validation_data=held_out, batch_size=BATCH, shuffle=False, verbose=0
        )
        yield {name: values[0] for name, values in history.history.items()}


@pytest.mark.parametrize(
    ("loss", "more"),
    [
        (SPARSE, {"weight_decay": 0.05}),
        (SPARSE, {"weight_decay": 0.05, "optimizer": "sgd", "momentum": 0.9}),
        (SPARSE, {"optimizer": "adamw"}),
        (SPARSE, {"optimizer": "adamw", "weight_decay": 0.1, "learning_rate": 0.01}),
        (SPARSE, {"label_smoothing": 0.2}),
        ("categorical_crossentropy", {"label_smoothing": 0.2, "optimizer": "sgd"}),
        ("binary_crossentropy", {"label_smoothing": 0.3}),
        ("categorical_focal_crossentropy", {"label_smoothing": 0.1, "weight_decay": 0.01}),
    ],
)
def test_epochs_are_those_of_keras_fit(programs, loss, more):
    """From the same weights, in the same order: every measured number, and the weights at the end."""
    keras.utils.set_random_seed(1)
    params = {**NET, **more}
    model = build_cnn(params, IMAGE, CLASSES, loss)
    start = model.get_weights()
    lanes = lanes_of(programs, [params], loss)
    lanes.set_lane(0, inputs_of(knobs.resolve(params), SEED), start)
    for wanted in fitted(model, 3):
        assert lanes.epoch()[0] == pytest.approx(wanted, rel=1e-4)
    for found, wanted in zip(lanes.lane_weights(0, best=False), model.get_weights(), strict=True):
        np.testing.assert_allclose(found, wanted, rtol=1e-3, atol=1e-4)


def test_lanes_of_other_values_share_one_program_and_measure_as_alone():
    trials = [
        {**NET, "dense_units": 5},
        {**NET, "dense_units": 5, "weight_decay": 0.5},
        {**NET, "dense_units": 5, "label_smoothing": 0.5},
        {**NET, "dense_units": 5, "optimizer": "sgd", "weight_decay": 0.1, "label_smoothing": 0.1},
    ]
    with Programs(threads=1) as programs:
        together = lanes_of(programs, trials)
        first, second = together.epoch(), together.epoch()
        assert programs.compilations.compiled + programs.compilations.cached == 1
        for lane, params in enumerate(trials):
            alone = lanes_of(programs, [params])
            assert [alone.epoch()[0], alone.epoch()[0]] == [
                pytest.approx(epoch[lane], rel=1e-4) for epoch in (first, second)
            ]
        assert programs.count == 2  # of four lanes, and of one
    assert len({epoch["val_loss"] for epoch in second}) == len(trials)


def test_none_is_the_optimizer_s_own_decay_and_zero_is_none():
    def decay(**params):
        return inputs_of(knobs.resolve(params), 1).weight_decay

    assert decay(optimizer="adamw") == pytest.approx(float(keras.optimizers.AdamW().weight_decay))
    assert decay(optimizer="adamw", weight_decay=None) == decay(optimizer="adamw")
    assert decay(optimizer="adamw", weight_decay=0) == decay(optimizer="adam") == 0
    assert decay(optimizer="sgd", weight_decay=0.25) == 0.25


@pytest.mark.parametrize("loss", LOSSES)
def test_a_loss_without_label_smoothing_has_no_program_with_it(loss):
    if loss in WITH_SMOOTHING:
        assert shape({"label_smoothing": 0.1}, loss) == shape({}, loss)
        return
    with pytest.raises(BadInput, match=f"'label_smoothing' is 0.1, but the loss {loss} has none"):
        shape({"label_smoothing": 0.1}, loss)
