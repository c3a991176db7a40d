"""Augmentation as knobs: what each does to an image, that it acts in training alone, and that an exported model keeps quiet."""

import subprocess
import sys

import keras
import numpy as np
import pytest

from imgclf_sweep.data.preprocess import Affine
from imgclf_sweep.models.augment import augmentation
from imgclf_sweep.models.build import count_parameters
from imgclf_sweep.models.cnn import build_cnn
from imgclf_sweep.models.knobs import resolve
from imgclf_sweep.training.serving import predict, serving_model

SPARSE = "sparse_categorical_crossentropy"
ALL = {"rotation": 20, "width_shift": 0.2, "height_shift": 0.2, "horizontal_flip": True, "shear": 0.2, "zoom": 0.2}
NAMES = ["rotation", "shift", "horizontal_flip", "shear", "zoom"]


def changed(image, seed=0, copies=64, **params):
    """What the layers of `params` make of many copies of an image (H, W, C) while training."""
    keras.utils.set_random_seed(seed)
    x = np.repeat(image[None].astype("float32"), copies, axis=0)
    for layer in augmentation(resolve(params)):
        x = layer(x, training=True)
    return np.asarray(x)


def spot(row, column, side=33):
    """A black image with one bright blot of 5x5 pixels."""
    image = np.zeros((side, side, 1), "float32")
    image[row - 2 : row + 3, column - 2 : column + 3] = 1
    return image


def centres(images):
    """(N, 2) rows and columns of the blots' centres of mass."""
    mass = images[..., 0]
    total = mass.sum(axis=(1, 2))
    rows, columns = np.indices(mass.shape[1:])
    return np.stack([(mass * rows).sum(axis=(1, 2)) / total, (mass * columns).sum(axis=(1, 2)) / total], axis=1)


def test_nothing_is_added_unless_asked_for():
    assert augmentation(resolve({})) == []
    assert augmentation(resolve({**dict.fromkeys(ALL, 0), "horizontal_flip": False})) == []
    assert [layer.name for layer in augmentation(resolve(ALL))] == NAMES
    assert (
        not resolve({}).augmented and resolve({"zoom": 0.1}).augmented and resolve({"horizontal_flip": True}).augmented
    )


def test_shifts_go_as_far_as_said_along_their_own_axis():
    moved = centres(changed(spot(16, 16), width_shift=0.2)) - 16
    assert np.abs(moved[:, 0]).max() < 0.01
    assert 0.1 * 33 < np.abs(moved[:, 1]).max() <= 0.2 * 33 + 0.01
    assert (moved[:, 1] > 0.5).any() and (moved[:, 1] < -0.5).any()
    moved = centres(changed(spot(16, 16), height_shift=0.1)) - 16
    assert np.abs(moved[:, 1]).max() < 0.01 and 1 < np.abs(moved[:, 0]).max() <= 3.31


def test_rotation_is_in_degrees_about_the_centre():
    to = centres(changed(spot(16, 26), rotation=20)) - 16
    angles = np.degrees(np.arctan2(to[:, 0], to[:, 1]))
    assert 12 < np.abs(angles).max() <= 20.5 and angles.min() < -5 and angles.max() > 5
    assert np.hypot(*to.T) == pytest.approx(10, abs=0.3)


def test_a_flip_mirrors_about_half_of_the_images():
    image = np.random.default_rng(0).uniform(size=(6, 6, 3)).astype("float32")
    out = changed(image, horizontal_flip=True)
    mirrored = np.array([np.array_equal(one, image[:, ::-1]) for one in out])
    same = np.array([np.array_equal(one, image) for one in out])
    assert (mirrored ^ same).all() and 16 < mirrored.sum() < 48


def test_zoom_scales_in_and_out_and_the_border_is_repeated():
    distance = centres(changed(spot(16, 24), zoom=0.2))[:, 1] - 16
    assert 8 / 1.25 < distance.min() < 8 < distance.max() < 8 * 1.3
    white = changed(np.ones((16, 16, 1)), **ALL)
    assert white == pytest.approx(np.ones_like(white), abs=1e-4)  # nothing dark comes in from outside


def test_shear_moves_rows_against_each_other_either_way():
    top, bottom = centres(changed(spot(4, 16), shear=0.2)), centres(changed(spot(28, 16), shear=0.2))
    between = top[:, 1] - bottom[:, 1]
    assert np.abs(top[:, 0] - 4).max() < 0.1  # no row moves up or down
    assert 2 < np.abs(between).max() <= 0.2 * 24 + 0.1 and between.min() < -1 and between.max() > 1


@pytest.fixture(scope="module")
def model():
    keras.utils.set_random_seed(3)
    return build_cnn({**ALL, "filters": 4, "dense_units": 8}, (12, 12, 3), 3, SPARSE)


def test_it_adds_no_parameters_and_acts_in_training_alone(model):
    plain = build_cnn({"filters": 4, "dense_units": 8}, (12, 12, 3), 3, SPARSE)
    assert count_parameters(model) == count_parameters(plain)
    x = np.random.default_rng(0).normal(size=(8, 12, 12, 3)).astype("float32")
    plain.set_weights(model.get_weights())
    np.testing.assert_array_equal(model.predict(x, verbose=0), plain.predict(x, verbose=0))
    assert np.abs(np.asarray(model(x, training=True)) - np.asarray(model(x, training=False))).max() > 1e-4


def test_the_exported_model_has_it_and_is_quiet(model, tmp_path):
    x = np.random.default_rng(1).integers(0, 256, (16, 12, 12, 3), dtype="uint8")
    affine = Affine((1 / 128,) * 3, (-1.0,) * 3)
    served = serving_model(model, affine, (12, 12, 3))
    served.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras", safe_mode=True)
    assert set(NAMES) <= {layer.name for layer in again.layers}
    np.testing.assert_allclose(again.predict(x, verbose=0), predict(model, affine, x), atol=1e-6)
    from_json = keras.models.model_from_json(served.to_json())
    served.save_weights(tmp_path / "model.weights.h5")
    from_json.load_weights(tmp_path / "model.weights.h5")
    np.testing.assert_allclose(from_json.predict(x, verbose=0), again.predict(x, verbose=0), atol=1e-6)


FIT = """
import sys
import keras, numpy as np
from imgclf_sweep.models.cnn import build_cnn
keras.utils.set_random_seed(0)
rng = np.random.default_rng(0)
y = rng.integers(0, 2, 64)
x = (rng.uniform(0, 0.2, (64, 8, 8, 1)) + 0.6 * y[:, None, None, None]).astype("float32")
model = build_cnn({**%r, "filters": 4, "dense_units": 8, "learning_rate": 0.01}, (8, 8, 1), 2, %r)
model.fit(x, y, epochs=8, batch_size=16, verbose=0)
print(keras.backend.backend(), model.evaluate(x, y, verbose=0, return_dict=True)["accuracy"], "tensorflow" in sys.modules)
"""


@pytest.mark.parametrize("backend", ["tensorflow", "jax"])
def test_it_is_fitted_with_either_tensor_library(backend, tmp_path):
    pytest.importorskip(backend)
    import os

    environment = {**os.environ, "KERAS_BACKEND": backend}
    code = FIT % (ALL, SPARSE)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, timeout=300)
    assert done.returncode == 0, done.stderr
    used, accuracy, _ = done.stdout.split()[-3:]
    assert used == backend and float(accuracy) > 0.9
