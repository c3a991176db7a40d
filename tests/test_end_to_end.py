"""One sweep as a user has it: search with a pruned, a failed and a resumed trial, a real TensorBoard, retrain, predict."""

import json
import os
import signal
import time

import cv2
import numpy as np
import pytest
from hparams_checks import check_board
from sklearn.datasets import load_digits

from imgclf_sweep.board import serve
from imgclf_sweep.record.layout import SweepDir
from imgclf_sweep.record.read import Reader
from imgclf_sweep.record.remove import foreign
from imgclf_sweep.training.weights import best_weights
from imgclf_sweep.trial import State

SYNTHETIC = ("--trainer", "synthetic")


def test_a_real_tensorboard_shows_every_trial_as_the_record_has_it(cli, digits_file):
    """HTTP checks on a finished sweep with pruned trials, a failed one, one resumed after its worker died and one after
    everything died."""
    faults = {"1": ["diverge", 2, 9], "2": ["kill", 3, 1]}
    command = ("run", digits_file, *SYNTHETIC, "--trials", 16, "--epochs", 8, "--workers", 1)
    process = cli.start(*command, synthetic={"faults": faults, "delay": 0.1})
    reader = None
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:  # until the fifth trial is under way
        if (cli.root / "sweeps" / "little" / "sweep.db").exists():
            reader = reader or Reader(SweepDir(cli.root, "little"))
            trials = reader.trials()
            if len(trials) > 4 and trials[4].curve:
                break
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    cli(*command, synthetic={"faults": faults})

    trials = reader.trials()
    assert len(trials) == 16 and all(t.state.finished for t in trials)
    assert trials[1].state is State.FAILED and trials[1].curve
    assert trials[2].state is not State.FAILED and trials[2].attempts == 2
    assert trials[4].attempts == 2
    assert any(t.state is State.PRUNED for t in trials)
    with serve(SweepDir(cli.root, "little").logs) as server:
        check_board(server.url, trials, reader.sweep, "little")


def digit_image(path, index, size):
    """A digit of scikit-learn's as an image file of another size; returns its class."""
    digits = load_digits()
    image = cv2.resize(np.uint8(digits.images[index] * 255 / 16), size, interpolation=cv2.INTER_NEAREST)
    assert cv2.imwrite(str(path), cv2.cvtColor(image, cv2.COLOR_GRAY2BGR))
    return str(digits.target[index])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("backend", "trainer"), [("optuna", "compiled"), pytest.param("keras-tuner", "fit", marks=pytest.mark.long)]
)
def test_search_retrain_and_predict_with_real_training(cli, project, tmp_path, backend, trainer):
    """The digits are compiled unless told otherwise; whatever trains, what is exported is one plain Keras model."""
    space = project / "search_spaces" / "digits.py"
    options = ("--backend", backend, "--name", "real", "--trials", 3, "--epochs", 8)
    options += ("--trainer", "fit") if trainer == "fit" else ()
    done = cli("run", space, *options)
    assert ("trainer: compiled (JAX)" in done.stderr) == (trainer == "compiled")
    assert ("compiled in" in done.stdout) == (trainer == "compiled")
    assert Reader(SweepDir(cli.root, "real")).info.trainer == trainer
    trials = Reader(SweepDir(cli.root, "real")).trials()
    assert [t.number for t in trials] == [0, 1, 2] and all(t.state is State.COMPLETE for t in trials)
    assert all(best_weights(SweepDir(cli.root, "real").checkpoint(n)) for n in range(3))
    again = cli("run", space, *options)
    assert "already has 3" in again.stdout

    out = cli("retrain", "real").stdout
    assert "test accuracy" in out and "test images alone" in out
    best = cli.root / "sweeps" / "real" / "best"
    assert {"model.keras", "labels.txt", "manifest.json", "score.json"} <= {p.name for p in best.iterdir()}
    cli("figures", "real")
    assert foreign(SweepDir(cli.root, "real")) == []  # what a whole sweep writes, --overwrite knows as its own
    images, truth = [], []
    for index, size in ((0, (8, 8)), (1, (80, 80)), (2, (31, 57)), (3, (16, 16))):
        images.append(tmp_path / f"image{index}.png")
        truth.append(digit_image(images[-1], index, size))
    predictions = cli.json("predict", "real", *images)
    assert [p["path"] for p in predictions] == [str(p) for p in images]
    assert sum(p["label"] == t for p, t in zip(predictions, truth, strict=True)) >= 3
    (tmp_path / "real").mkdir()  # a folder of images that the sweep is named for
    assert json.loads(cli("predict", "real", images[0], "--json", cwd=tmp_path).stdout) == predictions[:1]


MOVING = """
import os
import keras
from imgclf_sweep import Sweep, datasets

def build(hp):
    os.chdir(os.path.dirname(__file__))
    model = keras.Sequential([keras.Input((8, 8, 1)), keras.layers.Flatten()])
    model.add(keras.layers.Dense(hp.Choice("units", [4, 8]), activation="relu"))
    model.add(keras.layers.Dense(10, activation="softmax"))
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model

sweep = Sweep(dataset=datasets.digits(), model=build, epochs=1, trials=1)
"""


@pytest.mark.slow
def test_neither_the_file_s_directory_nor_the_user_s_moves_anything(cli_class, tmp_path):
    """A build(hp) that changes the working directory writes nothing there, and what one directory began another ends."""
    file = tmp_path / "spaces" / "moving.py"
    file.parent.mkdir()
    file.write_text(MOVING)
    jax = {"KERAS_BACKEND": "jax"}  # imported faster
    cli_class("project")("run", file, cwd=tmp_path, env=jax)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["project", "spaces"]
    assert {p.name for p in file.parent.iterdir()} <= {"moving.py", "__pycache__"}
    checkpoint = SweepDir(tmp_path / "project", "moving").checkpoint(0)
    assert best_weights(checkpoint)
    assert "test accuracy" in cli_class(".")("retrain", "moving", cwd=tmp_path / "project", env=jax).stdout
    (tmp_path / "project").rename(tmp_path / "elsewhere")
    assert "test accuracy" in cli_class("elsewhere")("retrain", "moving", "--trial", 0, cwd=tmp_path, env=jax).stdout


@pytest.mark.realdata
@pytest.mark.slow
def test_real_gray_cifar(cli, project, real_data, tmp_path):
    space = project / "search_spaces" / "cifar_gray.py"
    options = ("--trials", 2, "--epochs", 1, "--limit-images", 1000, "--data-dir", real_data)
    cli("run", space, *options, "--name", "gray")
    assert len(cli.json("trials", "gray")) == 2
    cli("retrain", "gray")
    image = next((real_data / "cifar10_images" / "test" / "cat").iterdir())
    assert cli.json("predict", "gray", image)[0]["label"] in (
        ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
    )
