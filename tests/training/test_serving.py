"""The model that takes raw images gives what the training pipeline gives, for every form a trained model can have."""

import keras
import numpy as np
import pytest

from imgclf_sweep.data.preprocess import Affine
from imgclf_sweep.models.cnn import build_cnn
from imgclf_sweep.training.serving import predict, serving_model

SHAPE = (9, 7, 3)
AFFINE = Affine((1 / 255, 1 / 64, 0.5), (0.0, -2.0, 1.5))  # unlike in each channel, so that a mix-up shows


@pytest.fixture(scope="module")
def raw():
    return np.random.default_rng(0).integers(0, 256, (300, *SHAPE), dtype="uint8")


def cnn():
    return build_cnn({"filters": 4, "dense_units": 8, "batch_norm": True}, SHAPE, 5, "sparse_categorical_crossentropy")


def sequential_logits():
    model = keras.Sequential([keras.Input(SHAPE), keras.layers.Flatten(), keras.layers.Dense(5)])
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    return model


def branched():
    image = keras.Input(SHAPE)
    left, right = keras.layers.Flatten()(image), keras.layers.GlobalAveragePooling2D()(image)
    out = keras.layers.Dense(5, activation="softmax")(keras.layers.Concatenate()([left, right]))
    model = keras.Model(image, out)
    model.compile("sgd", "categorical_crossentropy")
    return model


def single_logit():
    model = keras.Sequential([keras.Input(SHAPE), keras.layers.Flatten(), keras.layers.Dense(1)])
    model.compile("sgd", keras.losses.BinaryCrossentropy(from_logits=True))
    return model


@pytest.mark.parametrize("make", [cnn, sequential_logits, branched, single_logit])
def test_raw_images_give_what_scaled_ones_give_also_after_reloading(make, raw, tmp_path):
    model = make()
    outputs = predict(model, AFFINE, raw, batch=16)
    serving_model(model, AFFINE, SHAPE).save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras", safe_mode=True)
    assert loaded.input_shape == (None, *SHAPE) and loaded.inputs[0].dtype == "uint8"
    np.testing.assert_allclose(loaded.predict(raw, verbose=0), outputs, atol=1e-5)
    assert outputs.min() >= 0 and outputs.max() <= 1 and np.ptp(outputs) > 0
    if outputs.shape[1] > 1:
        np.testing.assert_allclose(outputs.sum(axis=1), 1, atol=1e-5)


def test_a_chain_becomes_one_flat_model():
    layers = serving_model(cnn(), AFFINE, SHAPE).layers
    assert [layer.name for layer in layers[:3]] == ["raw_images", "scale_raw_images", "block1_conv1"]
    assert not any(isinstance(layer, keras.Model) for layer in layers)


def test_images_not_scaled_are_only_made_float(raw):
    model = cnn()
    plain = Affine((1.0,) * 3, (0.0,) * 3)
    outputs = serving_model(model, plain, SHAPE).predict(raw[:4], verbose=0)
    np.testing.assert_allclose(outputs, model.predict(raw[:4].astype("float32"), verbose=0), atol=1e-5)
