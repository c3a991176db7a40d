"""An export is put in place whole, and only a model that plain Keras reloads with the same numbers counts as one."""

import keras
import numpy as np
import pytest

from imgclf_sweep.errors import StoreError, SweepError
from imgclf_sweep.export import label_names, prove, staged, versions, write_json, write_text


def test_a_new_export_replaces_the_old_one_whole(tmp_path):
    target = tmp_path / "deep" / "best"
    for text in ("first", "second"):
        with staged(target) as stage:
            write_text(stage / "a", text)
            assert not target.exists() or (target / "a").read_text() == "first"
        assert (target / "a").read_text() == text
    assert [p.name for p in target.parent.iterdir()] == ["best"]


def test_a_failure_on_the_way_leaves_the_old_export(tmp_path):
    target = tmp_path / "best"
    with staged(target) as stage:
        write_text(stage / "a", "old")
    with pytest.raises(ValueError), staged(target) as stage:
        write_text(stage / "a", "new")
        raise ValueError
    with pytest.raises(StoreError, match="No space left"), staged(target) as stage:
        raise OSError(28, "No space left on device")
    assert (target / "a").read_text() == "old" and [p.name for p in tmp_path.iterdir()] == ["best"]


def test_outputs_beyond_the_classes_get_a_name():
    assert label_names(["a", "b"], 2) == ["a", "b"]
    assert label_names(["a", "b"], 1) == ["a", "b"]
    assert label_names(["a", "b"], 4) == ["a", "b", "(output 2)", "(output 3)"]


def test_json_has_numbers_of_numpy_but_no_nan(tmp_path):
    write_json(tmp_path / "x.json", {"a": np.float32(0.5), "b": (1, np.arange(2))})
    assert (tmp_path / "x.json").read_text().split() == [
        "{",
        '"a":',
        "0.5,",
        '"b":',
        "[",
        "1,",
        "[",
        "0,",
        "1",
        "]",
        "]",
        "}",
    ]
    with pytest.raises(ValueError):
        write_json(tmp_path / "y.json", {"a": float("nan")})
    assert {"python", "keras", "numpy"} <= set(versions())


@pytest.fixture
def model(tmp_path):
    """A saved model with its images and outputs beside it."""
    images = np.random.default_rng(0).integers(0, 256, (8, 3, 3, 1), dtype="uint8")
    inputs = keras.Input((3, 3, 1), dtype="uint8")
    scaled = keras.layers.Flatten()(keras.layers.Rescaling(1 / 255)(inputs))
    net = keras.Model(inputs, keras.layers.Dense(2, activation="softmax")(scaled))
    net.save(tmp_path / "model.keras")
    np.save(tmp_path / "images.npy", images)
    np.save(tmp_path / "expected.npy", net.predict(images, verbose=0))
    return tmp_path


def proof(path):
    return prove(path / "model.keras", path / "images.npy", path / "expected.npy", path / "log")


def test_a_model_that_comes_back_the_same_is_proved(model):
    assert proof(model) <= 1e-5


def test_a_model_with_other_numbers_is_refused(model):
    np.save(model / "expected.npy", np.load(model / "expected.npy") + np.float32(1e-3))
    with pytest.raises(SweepError, match="differs from the trained one by 0.001, allowed is 1e-05"):
        proof(model)


def test_a_model_that_plain_keras_refuses_is_no_export(model):
    inputs = keras.Input((3, 3, 1), dtype="uint8")
    outputs = keras.layers.Lambda(lambda x: x[:, 0, 0, :], output_shape=(1,))(inputs)
    keras.Model(inputs, outputs).save(model / "model.keras")
    with pytest.raises(SweepError, match="does not load with plain Keras.*Lambda"):
        proof(model)
