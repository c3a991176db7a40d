"""Naming the class of image files with an export, and what is said of one that cannot be used."""

import json
import shutil

import cv2
import keras
import numpy as np
import pytest

from imgclf_sweep import datasets
from imgclf_sweep.data.image import read_image
from imgclf_sweep.data.preprocess import Affine
from imgclf_sweep.errors import BadInput
from imgclf_sweep.export import reading, write_json, write_text
from imgclf_sweep.predict import predict
from imgclf_sweep.training.serving import serving_model

NAMES = ["red", "green", "blue"]


def export_to(path, color, model, names=NAMES, size=(6, 4)):
    path.mkdir()
    channels = 3 if color == "rgb" else 1
    affine = Affine((1 / 255,) * channels, (0.0,) * channels)
    serving_model(model, affine, (*size, channels)).save(path / "model.keras")
    write_text(path / "labels.txt", "".join(f"{name}\n" for name in names))
    write_json(path / "manifest.json", {"images": reading(datasets.image_folder("x", size=size, color=color))})
    return path


def strongest_channel():
    """A model that names the strongest channel: the probabilities are the softmax of the channels' means, times four."""
    model = keras.Sequential(
        [keras.Input((6, 4, 3)), keras.layers.GlobalAveragePooling2D(), keras.layers.Dense(3, activation="softmax")]
    )
    model.layers[-1].set_weights([4 * np.eye(3), np.zeros(3)])
    model.compile("sgd", "sparse_categorical_crossentropy")
    return model


@pytest.fixture(scope="module")
def export(tmp_path_factory):
    return export_to(tmp_path_factory.mktemp("exports") / "best", "rgb", strongest_channel())


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """One file for each class, of different sizes and formats."""
    folder = tmp_path_factory.mktemp("images")
    paths = []
    for i, (name, size) in enumerate([("r.png", (6, 4)), ("g.jpg", (300, 200)), ("b.bmp", (3, 2))]):
        picture = np.full((*size, 3), 20, "uint8")
        picture[..., 2 - i] = 230  # OpenCV writes BGR
        cv2.imwrite(str(folder / name), picture)
        paths.append(folder / name)
    return paths


def test_images_of_any_size_and_format_are_named_in_rgb_order(export, images):
    found = predict(export, images)
    assert [p.label for p in found] == NAMES and [p.path for p in found] == images
    network = keras.models.load_model(export / "model.keras")
    for image, prediction in zip(images, found, strict=True):
        row = network.predict(read_image(image, (6, 4), "rgb")[None], verbose=0)[0]
        assert prediction.probability == pytest.approx(row.max(), abs=1e-6) and 0.9 < prediction.probability <= 1


def test_the_model_file_itself_may_be_given(export, images):
    assert predict(export / "model.keras", images[:1]) == predict(export, images[:1])


def test_gray_models_and_single_outputs(tmp_path, images):
    model = keras.Sequential(
        [keras.Input((6, 4, 1)), keras.layers.GlobalAveragePooling2D(), keras.layers.Dense(1, activation="sigmoid")]
    )
    model.layers[-1].set_weights([np.array([[20.0]]), np.array([-10.0])])
    model.compile("sgd", "binary_crossentropy")
    export = export_to(tmp_path / "two", "gray", model, ["dark", "bright"])
    white = tmp_path / "white.png"
    cv2.imwrite(str(white), np.full((5, 5), 250, "uint8"))
    dark, bright = predict(export, [images[2], white])
    assert (dark.label, bright.label) == ("dark", "bright")
    assert dark.probability > 0.9 and bright.probability > 0.9


def test_an_image_that_cannot_be_read_is_named(export, images, tmp_path):
    torn = tmp_path / "torn.png"
    torn.write_bytes(images[0].read_bytes()[:40])
    with pytest.raises(BadInput, match=r"torn\.png"):
        predict(export, [images[0], torn])
    with pytest.raises(BadInput, match=r"missing\\n\.png"):
        predict(export, [tmp_path / "missing\n.png"])


@pytest.fixture
def copy(export, tmp_path):
    return shutil.copytree(export, tmp_path / "copy")


def test_a_bad_image_is_named_before_the_model_is_loaded(copy, tmp_path):
    (copy / "model.keras").unlink()
    (tmp_path / "text.png").write_text("hello")
    with pytest.raises(BadInput, match=r"text\.png"):
        predict(copy, [tmp_path / "text.png"])


def test_missing_parts_are_named(copy, images, tmp_path):
    with pytest.raises(BadInput, match="nowhere"):
        predict(tmp_path / "nowhere", images)
    for name in ("model.keras", "labels.txt", "manifest.json"):
        (copy / name).rename(tmp_path / name)
        with pytest.raises(BadInput, match=name):
            predict(copy, images)
        (tmp_path / name).rename(copy / name)
    predict(copy, images)


def test_a_torn_or_foreign_model_gets_its_true_reason(copy, images):
    whole = (copy / "model.keras").read_bytes()
    (copy / "model.keras").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(BadInput, match="torn or no Keras model"):
        predict(copy, images)
    damaged = bytearray(whole)
    damaged[60] ^= 0xFF  # within the first member of the archive
    (copy / "model.keras").write_bytes(damaged)
    with pytest.raises(BadInput, match="torn"):
        predict(copy, images)


def test_a_model_that_would_run_code_is_refused(copy, images):
    inputs = keras.Input((6, 4, 3), dtype="uint8")
    outputs = keras.layers.Lambda(lambda x: x[:, 0, 0, :], output_shape=(3,))(inputs)
    keras.Model(inputs, outputs).save(copy / "model.keras")
    with pytest.raises(BadInput, match="Lambda") as caught:
        predict(copy, images)
    assert "\n" not in str(caught.value)


def test_a_manifest_or_labels_that_do_not_fit_are_refused(copy, images):
    (copy / "labels.txt").write_text("red\n")
    with pytest.raises(BadInput, match="3 outputs but labels.txt names 1"):
        predict(copy, images)
    (copy / "labels.txt").write_text("red\ngreen\nblue\n")
    (copy / "manifest.json").write_text(json.dumps({"images": {"size": [5, 5], "color": "rgb"}}))
    with pytest.raises(BadInput, match="does not take images"):
        predict(copy, images)
    for text in ("{", "[]", '{"images": {"size": 3}}'):
        (copy / "manifest.json").write_text(text)
        with pytest.raises(BadInput, match="does not say how images are read"):
            predict(copy, images)
