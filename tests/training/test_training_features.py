"""What a frozen backbone makes of the images: computed once, shared, refused where there is no room, never of the test part."""

import os
import shutil
from collections import namedtuple
from pathlib import Path

import keras
import numpy as np
import pytest

from imgclf_sweep import Choice, SearchSpace, Sweep, datasets
from imgclf_sweep.data.cache import Prepared, prepare
from imgclf_sweep.errors import BadInput
from imgclf_sweep.models.build import Builder
from imgclf_sweep.training import room
from imgclf_sweep.training.batches import Batches
from imgclf_sweep.training.features import features
from imgclf_sweep.training.fit import FitTrainer
from imgclf_sweep.training.images import fitted, load
from imgclf_sweep.training.protocol import Job, Reply, Setup
from imgclf_sweep.training.weights import BEST, load_weights
from imgclf_sweep.trial import Kind, State, Suggestion

LIMIT = 60


@pytest.fixture(scope="module")
def backbone(tmp_path_factory):
    """A weights file of MobileNet without its top: random, its normalisation made to fit random images."""
    keras.utils.set_random_seed(2)
    path = tmp_path_factory.mktemp("weights") / "mobilenet.weights.h5"
    model = keras.applications.MobileNet(include_top=False, input_shape=(32, 32, 3), weights=None)
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.momentum = 0.0
    model(np.random.default_rng(0).uniform(-1, 1, (16, 32, 32, 3)).astype("float32"), training=True)
    model.save_weights(path)
    return str(path)


def declared(file, **space):
    given = {
        "backbone": "MobileNet",
        "image_size": 32,
        "weights": file,
        "thaw": Choice(["none", "all"]),
        "pooling": "avg",
        "dense_units": Choice([8, 16]),
        "learning_rate": 0.01,
    }
    return Sweep(
        datasets.digits(scale=None),
        model="transfer",
        space=SearchSpace({**given, **space}),
        loss="categorical_crossentropy",
        batch_size=16,
    )


@pytest.fixture(scope="module")
def setup(tmp_path_factory, backbone):
    """The digits in a cache of their own, their test part taken away: nothing here may need it."""
    cache = tmp_path_factory.mktemp("cache")
    prepared = prepare(
        datasets.digits(scale=None), cache=cache, data_dir=None, test=0.2, seed=0, note=lambda line: None
    )
    return Setup(declared(backbone), str(prepared.path), LIMIT)


@pytest.fixture(autouse=True)
def sealed(setup):
    """The test part cannot be read while a test runs."""
    paths = [Path(setup.data) / f"test_{name}.npy" for name in "xy"]
    kept = [(path, path.read_bytes()) for path in paths]
    for path, content in kept:
        path.write_bytes(b"\0" * len(content))
    yield
    for path, content in kept:
        assert path.read_bytes() == b"\0" * len(content)
        path.write_bytes(content)


def found(setup):
    return sorted((Path(setup.data).parent / "features").glob("*/features.npy"))


def run(trainer, directory, params, *, epochs=2, seed=3, part="train"):
    seen = []

    def on_epoch(measurement):
        seen.append(dict(measurement.metrics))
        return Reply.GO

    job = Job(Suggestion(0, dict(params), epochs), "token", seed, str(directory), part=part)
    return trainer.train(job, on_epoch), seen


def test_trials_share_one_file_and_keep_the_whole_network(setup, tmp_path, capsys):
    trainer, params = FitTrainer(setup), setup.sweep.space.defaults()
    outcome, seen = run(trainer, tmp_path / "a", params, epochs=4)
    assert outcome.state is State.COMPLETE, outcome.reason
    (file,) = found(setup)
    rows = np.load(file)
    assert rows.dtype == np.float16 and rows.shape == (LIMIT, 1024)
    assert capsys.readouterr().out.count("computing MobileNet (32x32, avg) features of 60 images: 0.1 MB") == 1
    before = file.stat()

    again, same = run(trainer, tmp_path / "b", params, epochs=4)
    other, _ = run(trainer, tmp_path / "c", {**params, "dense_units": 16})
    whole, _ = run(trainer, tmp_path / "d", params, part="all", epochs=1)
    assert same == seen and again.value == outcome.value  # the seed decides, the order of the batches included
    assert other.state is whole.state is State.COMPLETE
    assert found(setup) == [file] and file.stat() == before
    assert "computing" not in capsys.readouterr().out

    images = load(setup, "train")
    model = Builder(setup.sweep, pretrained=False).build(params, images.shape, images.classes).model
    load_weights(model, tmp_path / "a" / BEST)
    targets = np.eye(10, dtype="float32")[images.validation_y]
    measured = model.evaluate(images.validation_x, targets, verbose=0, return_dict=True)
    best = seen[outcome.epoch - 1]
    assert measured["loss"] == pytest.approx(best["val_loss"], rel=5e-3)  # the kept features are halves
    assert measured["accuracy"] == pytest.approx(best["val_accuracy"], abs=0.1)
    assert seen[-1]["loss"] < seen[0]["loss"]


def trunk_of(setup, **changes):
    params = {**setup.sweep.space.defaults(), **changes}
    return Builder(setup.sweep).build(params, (8, 8, 1), 10).frozen


def test_rows_are_the_trunk_s_features_of_each_image(setup, tmp_path):
    chosen, frozen = fitted(setup, "train"), trunk_of(setup)
    kept = features(frozen.trunk, frozen.made_of, chosen, tmp_path, lambda line: None)
    exact = frozen.trunk.predict(chosen.affine.apply(chosen.x[chosen.validation]), verbose=0)
    batches = kept.batches(chosen.validation, np.arange(len(chosen.validation)), 5, None)
    x = np.concatenate([batches[i][0] for i in range(len(batches))])
    y = np.concatenate([batches[i][1] for i in range(len(batches))])
    assert x.dtype == np.float32 and y.tolist() == list(range(len(chosen.validation)))
    np.testing.assert_allclose(x, exact, rtol=2e-3, atol=1e-5)
    assert exact.std() > 0.05


def test_another_trunk_has_features_of_its_own(setup, tmp_path):
    chosen = fitted(setup, "train")
    for changes in ({}, {"pooling": "max"}, {"image_size": 64}, {"preprocessing": False}):
        frozen = trunk_of(setup, **changes)
        features(frozen.trunk, frozen.made_of, chosen, tmp_path, lambda line: None)
    frozen = trunk_of(setup)
    frozen.trunk.set_weights([w * 1.01 for w in frozen.trunk.get_weights()])
    features(frozen.trunk, frozen.made_of, chosen, tmp_path, lambda line: None)
    assert len(list((tmp_path / "features").glob("*/features.npy"))) == 5
    assert not [path for path in (tmp_path / "features").iterdir() if path.name.startswith(".")]


def test_a_damaged_file_is_made_anew_and_a_killed_build_leaves_nothing(setup, tmp_path):
    chosen, frozen = fitted(setup, "train"), trunk_of(setup)
    notes = []
    whole = np.array(features(frozen.trunk, frozen.made_of, chosen, tmp_path, notes.append).rows)
    (file,) = (tmp_path / "features").glob("*/features.npy")
    os.truncate(file, 500)
    left = file.parent.with_name(f".{file.parent.name}.part")
    left.mkdir()
    (left / "features.npy").write_bytes(b"torn")
    again = features(frozen.trunk, frozen.made_of, chosen, tmp_path, notes.append)
    np.testing.assert_array_equal(again.rows, whole)
    assert len(notes) == 2 and not left.exists()


def test_each_epoch_has_every_image_once_in_another_order():
    rows, targets = np.arange(20, dtype="float16")[:, None], np.arange(10)
    batches = Batches(rows, np.arange(0, 20, 2), targets, 4, seed=1)
    assert len(batches) == 3

    def epoch(number):
        batches.begin(number)
        out = [batches[i] for i in range(len(batches))]
        return [tuple(y) for _, y in out], all((x[:, 0] == 2 * y).all() for x, y in out)

    (first, right), (second, also) = epoch(0), epoch(1)
    assert right and also and first != second and epoch(0) == (first, True)
    assert sorted(sum(first, ())) == sorted(sum(second, ())) == list(range(10))


def test_features_that_a_half_cannot_hold_are_refused(setup, tmp_path):
    chosen, frozen = fitted(setup, "train"), trunk_of(setup)
    frozen.trunk.set_weights([w * 1e9 for w in frozen.trunk.get_weights()])
    keras.utils.set_random_seed(0)
    big = keras.Model(frozen.trunk.input, keras.layers.Rescaling(1e9, 1e9)(frozen.trunk.output))
    with pytest.raises(BadInput, match="MobileNet.*not finite in float16"):
        features(big, frozen.made_of, chosen, tmp_path, lambda line: None)
    assert not list((tmp_path / "features").iterdir())


Usage = namedtuple("Usage", "total used free")


def test_no_room_is_said_before_anything_is_written(setup, tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(10**9, 10**9, 100_000))
    chosen, frozen = fitted(setup, "train"), trunk_of(setup)
    said = (
        r"features of MobileNet \(32x32, avg\) take 0.1 MB under .*, where 0.1 MB are free: choose a smaller image_size"
    )
    with pytest.raises(BadInput, match=said):
        features(frozen.trunk, frozen.made_of, chosen, tmp_path, lambda line: None)
    assert not (tmp_path / "features").exists() or not list((tmp_path / "features").iterdir())
    outcome, _ = run(
        FitTrainer(setup),
        tmp_path,
        setup.sweep.space.defaults() | {"pooling": "max"},
    )
    assert (
        outcome.state is State.FAILED and outcome.kind is Kind.BUILD and "MobileNet (32x32, max) take" in outcome.reason
    )


def test_a_sweep_announces_what_it_will_keep(setup, backbone, monkeypatch):
    prepared = Prepared.open(setup.data)
    sweep = declared(backbone, backbone=Choice(["MobileNet", "VGG16", "InceptionV3"]), pooling="flatten")
    lines = list(room.announce(sweep, prepared, None))  # InceptionV3 takes no images of 32x32
    size = 2 * prepared.train_images * 1024 / 1e6
    assert len(lines) == 2 and f"MobileNet (32x32, flatten) are computed once and kept: {size:.1f} MB" in lines[0]
    assert "VGG16 (32x32, flatten)" in lines[1]
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(10**9, 10**9, 1000))
    with pytest.raises(BadInput, match="where 0.0 MB are free"):
        list(room.announce(sweep, prepared, None))
    monkeypatch.undo()
    frozen, chosen = trunk_of(setup), fitted(setup, "train")
    features(frozen.trunk, frozen.made_of, chosen, prepared.path.parent, lambda line: None)
    assert list(room.announce(setup.sweep, prepared, LIMIT)) == []  # there already


def test_nothing_is_announced_where_nothing_is_kept(setup, backbone, monkeypatch):
    monkeypatch.setattr(room, "Child", None)  # nothing needs to be built to know that
    prepared = Prepared.open(setup.data)
    for space in ({"thaw": "all"}, {"weights": None}, {"rotation": 10}, {"horizontal_flip": True}):
        assert list(room.announce(declared(backbone, **space), prepared, None)) == []
    assert list(room.announce(Sweep(datasets.digits()), prepared, None)) == []
