"""`Builder`: one door to both kinds of model, and to a user's function that may have changed under it."""

import sys
from pathlib import Path

import pytest

from imgclf_sweep import Int, SearchSpace, Sweep, datasets
from imgclf_sweep.errors import BadInput
from imgclf_sweep.models.build import Builder
from imgclf_sweep.sweep import BuildFunction
from imgclf_sweep.sweepfile import digest, execute

FILE = """
import keras
from imgclf_sweep import *

OUTPUTS = 10
CALLS = []

def build(hp):
    model = keras.Sequential([
        keras.layers.Flatten(), keras.layers.Dense(hp.Int("units", 1, 8)), keras.layers.Dense(OUTPUTS, "softmax"),
    ])
    if hp.get("units") == 4:
        hp.Boolean("late")
    model.compile("adam", "categorical_crossentropy", metrics=["accuracy"])
    return model

sweep = Sweep(dataset=datasets.digits(), model=build, trials=3)
"""


@pytest.fixture
def declared(tmp_path, monkeypatch):
    """A function that writes a sweep file and gives the declaration that workers get of it."""
    monkeypatch.setattr(sys, "path", list(sys.path))

    def declare(text=FILE) -> tuple[Path, Sweep]:
        path = tmp_path / "mine.py"
        path.write_text(text)
        sweep = execute(path)
        function = BuildFunction(str(path), "build", digest(path, sweep.model))
        return path, Sweep(datasets.digits(), model=function, space=SearchSpace(units=Int(1, 8)))

    return declare


def test_the_family_is_built_with_the_sweeps_loss():
    for loss, sparse in (("sparse_categorical_crossentropy", True), ("categorical_crossentropy", False)):
        sweep = Sweep(datasets.digits(), space=SearchSpace(filters=[2, 4]), loss=loss)
        built = Builder(sweep).build({"filters": 4}, (8, 8, 1), 10)
        assert built.model.loss == loss and built.sparse_labels is sparse and built.found == {}
        assert built.model.get_layer("block1_conv1").filters == 4


def test_smoothed_labels_are_one_hot_whatever_the_loss():
    for loss in ("sparse_categorical_crossentropy", "binary_crossentropy"):
        sweep = Sweep(datasets.digits(), space=SearchSpace(label_smoothing=[0, 0.1]), loss=loss)
        assert Builder(sweep).build({"label_smoothing": 0.1}, (8, 8, 1), 10).sparse_labels is False
        plain = Builder(sweep).build({"label_smoothing": 0}, (8, 8, 1), 10)
        assert plain.sparse_labels is (loss == "sparse_categorical_crossentropy")


def test_a_users_function_is_read_from_its_file(declared):
    _, sweep = declared()
    builder = Builder(sweep)
    built = builder.build({"units": 4}, (8, 8, 1), 10)
    assert built.model.layers[1].units == 4 and built.model.built and built.model.input_shape == (None, 8, 8, 1)
    assert built.found == {"late": False} and built.sparse_labels is False
    Path(sweep.model.file).unlink()  # it was read once
    assert builder.build({"units": 5}, (8, 8, 1), 10).found == {}


def test_a_live_function_needs_no_file(declared):
    path, _ = declared()
    assert Builder(execute(path)).build({"units": 2}, (8, 8, 1), 10).model.layers[1].units == 2


def test_a_function_that_changed_or_is_gone_is_refused(declared):
    path, sweep = declared()
    path.write_text(FILE.replace("OUTPUTS = 10", "OUTPUTS = 11"))
    with pytest.raises(BadInput, match=r"build\(hp\) has changed since this sweep began"):
        Builder(sweep).build({"units": 4}, (8, 8, 1), 10)
    path.write_text(FILE.replace("trials=3", "trials=30") + "# a remark\n")
    assert Builder(sweep).build({"units": 4}, (8, 8, 1), 10).model.output_shape == (None, 10)
    path.unlink()
    with pytest.raises(BadInput, match="is gone"):
        Builder(sweep).build({"units": 4}, (8, 8, 1), 10)


def test_a_model_for_other_data_is_refused(declared):
    _, sweep = declared(FILE.replace("keras.layers.Flatten()", "keras.Input((4, 4, 1)), keras.layers.Flatten()"))
    with pytest.raises(BadInput, match="takes images 4x4x1, the data set has 8x8x1"):
        Builder(sweep).build({"units": 4}, (8, 8, 1), 10)
    with pytest.raises(BadInput, match="tells 10 classes apart, the data set has 12"):
        Builder(sweep).build({"units": 4}, (4, 4, 1), 12)
