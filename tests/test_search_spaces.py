"""Every search space that is shipped: loaded, its published networks counted exactly, and run on data in the real layout."""

import functools
import json
import os
from pathlib import Path

import cv2
import numpy as np
import pytest

from imgclf_sweep.check import configuration
from imgclf_sweep.data.cache import Prepared, prepare
from imgclf_sweep.declare import read
from imgclf_sweep.models.build import Builder, count_parameters
from imgclf_sweep.training.room import announce

FOLDER = Path(__file__).resolve().parent.parent / "search_spaces"
FILES = sorted(path.stem for path in FOLDER.glob("*.py"))
SMALL = {"IMGCLF_SWEEP_BACKBONES": "MobileNet", "IMGCLF_SWEEP_SIDE": "32", "IMGCLF_SWEEP_WEIGHTS": "none"}


def images(rng, count, shape):
    """Random images of ten classes that differ in brightness, every class equally often."""
    y = np.arange(count) % 10
    x = rng.integers(0, 56, (count, *shape)) + 20 * y.reshape(-1, *[1] * len(shape))
    return x.astype("uint8"), y.astype("uint8")


@pytest.fixture(scope="session")
def data_dir(tmp_path_factory):
    """cifar10.npz and mnist.npz as Keras publishes them but with 80 + 20 images, and a folder of photos in three classes."""
    folder, rng = tmp_path_factory.mktemp("data"), np.random.default_rng(0)
    for name, shape in (("cifar10", (32, 32, 3)), ("mnist", (28, 28))):
        (x, y), (x_test, y_test) = images(rng, 80, shape), images(rng, 20, shape)
        if name == "cifar10":
            y, y_test = y[:, None], y_test[:, None]
        np.savez(folder / f"{name}.npz", x_train=x, y_train=y, x_test=x_test, y_test=y_test)
    for label, name in enumerate(("bottle", "cup", "spoon")):
        (folder / "photos" / name).mkdir(parents=True)
        for number in range(10):
            photo = rng.integers(0, 100, (120, 150, 3)) + 70 * label
            cv2.imwrite(str(folder / "photos" / name / f"{number:03}.jpg"), photo.astype("uint8"))
    return folder


@pytest.fixture(scope="session")
def declared(data_dir, tmp_path_factory):
    """A function from a file's name to its sweep and prepared data."""
    cache = tmp_path_factory.mktemp("cache")

    @functools.cache
    def declare(name):
        sweep = read(FOLDER / f"{name}.py")
        prepared = prepare(
            sweep.dataset, cache=cache, data_dir=data_dir, test=sweep.test, seed=0, note=lambda line: None
        )
        return sweep, prepared

    return declare


@pytest.fixture(autouse=True)
def photos(data_dir, monkeypatch):
    monkeypatch.setenv("IMGCLF_SWEEP_IMAGES", str(data_dir / "photos"))
    for name in SMALL:
        monkeypatch.delenv(name, raising=False)


COUNTS = [  # (file, --known, --at, all parameters, trainable)
    ("cifar_gray", 0, [], 535_658, 535_658),
    ("cifar_gray", 1, [], 2_267_338, 2_267_338),
    ("cifar_kt_six", 0, [], 940_458, 940_074),
    (
        "cifar_kt_six",
        None,
        ["conv_1_filter=80", "conv_1_kernel=5", "conv_2_filter=48", "conv_2_kernel=5", "dense_1_units=96"],
        940_458,
        940_074,
    ),
    (
        "cifar_kt_five",
        None,
        ["conv_1_filter=112", "conv_1_kernel=3", "conv_2_filter=64", "conv_2_kernel=5", "dense_1_units=96"],
        2_379_818,
        2_379_434,
    ),
    ("cifar_transfer", None, ["backbone=ResNet50"], 40_899_018, 40_583_370),
    ("cifar_transfer", None, ["backbone=VGG16"], 19_049_866, 18_983_946),
    ("cifar_transfer", None, ["backbone=InceptionV3"], 31_544_682, 31_362_410),
    ("cifar_augment", 0, [], 45_738, 45_738),
    ("cifar_augment_inception", 0, [], 31_544_682, 31_362_410),
    ("cifar_batchnorm", 0, [], 156_074, 156_074),
    ("cifar_batchnorm", 1, [], 1_517_450, 1_515_658),
    ("mnist", 0, [], 542_230, 542_230),
    ("image_folder", 0, [], 1_094_250, 1_094_250),
]


@pytest.mark.parametrize(("name", "known", "at", "total", "trainable"), COUNTS)
def test_published_networks_have_exactly_their_size(declared, name, known, at, total, trainable):
    sweep, prepared = declared(name)
    params = configuration(sweep, at, known)
    model = Builder(sweep, pretrained=False).build(params, prepared.shape, len(prepared.classes)).model
    assert count_parameters(model) == (total, trainable)


def test_the_command_says_the_same(cli, data_dir):
    done = cli("check", FOLDER / "cifar_gray.py", "--known", 1, "--data-dir", data_dir)
    assert "2,267,338 parameters: 2,267,338 trainable, 0 not" in done.stdout


@pytest.mark.parametrize("name", FILES)
def test_the_header_says_what_for_how_and_what_comes_of_it(name):
    header = (FOLDER / f"{name}.py").read_text().split('"""')[1]
    assert f"sweep run search_spaces/{name}.py" in header
    assert f"sweep retrain {name}" in header
    for word in ("Cost:", "Expected"):
        assert word in header, word


def test_the_gray_grid_is_the_study_s(declared):
    sweep, prepared = declared("cifar_gray")
    assert sweep.space.grid_size() == 144
    assert [s.epochs for s in sweep.known_suggestions] == [10, 20]
    assert prepared.shape == (32, 32, 1) and sweep.batch_size == 500 and sweep.epochs == 5


def test_the_folder_is_taken_from_where_the_command_is_typed(data_dir, monkeypatch):
    monkeypatch.chdir(data_dir)
    monkeypatch.setenv("IMGCLF_SWEEP_IMAGES", "photos")
    assert read(FOLDER / "image_folder.py").dataset.path == str((data_dir / "photos").resolve())


def test_the_folder_is_split_in_three_fifths_and_twice_one(declared):
    sweep, prepared = declared("image_folder")
    assert (prepared.train_images, prepared.test_images) == (24, 6)
    assert prepared.train_images * sweep.validation == 6
    assert prepared.shape == (100, 100, 3) and prepared.classes == ["bottle", "cup", "spoon"]


def test_cifar_s_features_at_full_size_are_announced(declared, tmp_path):
    sweep, prepared = declared("cifar_transfer")
    whole = Prepared(tmp_path / "x", prepared.shape, prepared.classes, "f", 50_000, 10_000)
    lines = "\n".join(announce(sweep.replaced(space=_only(sweep, "ResNet50", "VGG16")), whole, None))
    assert "ResNet50 (256x256, flatten) are computed once and kept: 13.1 GB" in lines
    assert "VGG16 (256x256, flatten) are computed once and kept: 3.3 GB" in lines


def _only(sweep, *backbones):
    from imgclf_sweep import Choice, SearchSpace

    return SearchSpace({**sweep.space, "backbone": Choice(list(backbones))})


def run(cli, name, data_dir, *options, **environment):
    env = {**os.environ, "IMGCLF_SWEEP_IMAGES": str(data_dir / "photos"), **environment}
    common = ["--data-dir", data_dir, "--epochs", 1, "--workers", 0]
    cli("run", FOLDER / f"{name}.py", *common, *options, env=env)
    sweep = options[options.index("--name") + 1] if "--name" in options else name
    return cli.json("trials", sweep)


def finished(trials, count):
    """Whether so many trials are there, each measured."""
    assert len(trials) == count
    for trial in trials:
        assert trial["state"] == "COMPLETE" and 0 <= trial["value"] <= 1, trial


KNOWN = {
    "cifar_augment": 1,
    "cifar_augment_inception": 1,
    "cifar_batchnorm": 2,
    "cifar_gray": 2,
    "cifar_kt_five": 1,
    "cifar_kt_six": 1,
    "cifar_transfer": 1,
    "image_folder": 1,
    "mnist": 1,
}


QUICK = ("cifar_gray", "cifar_kt_six", "cifar_transfer", "image_folder", "mnist")


def either_search():
    """Every file on both search libraries: the quick ones by `make test` on one of them in turn, all else by `make test-long`."""
    for turn, name in enumerate(name for name in FILES if name != "digits"):
        for backend in ("optuna", "keras-tuner"):
            short = name in QUICK and (backend == "optuna") == (turn % 2 == 0)
            marks = [pytest.mark.slow] if short else [pytest.mark.long]
            yield pytest.param(name, backend, marks=marks)


@pytest.mark.parametrize(("name", "backend"), list(either_search()))
def test_it_runs_on_either_search(cli, data_dir, name, backend):
    count = max(2, KNOWN.get(name, 0) + 1)  # one of them from the search itself
    trials = run(cli, name, data_dir, "--trials", count, "--backend", backend, "--sampler", "random", **SMALL)
    finished(trials, count)


def test_the_first_sweep_runs(cli, data_dir):
    finished(run(cli, "digits", data_dir, "--trials", 2, "--limit-images", 100), 2)


def test_a_transfer_sweep_ends_in_a_whole_network(cli, data_dir):
    run(cli, "cifar_transfer", data_dir, "--trials", 1, **SMALL)
    cli("retrain", "cifar_transfer", "--workers", 0)
    best = cli.root / "sweeps" / "cifar_transfer" / "best"
    manifest = json.loads((best / "manifest.json").read_text())
    assert manifest["reload_difference"] <= 1e-5 and manifest["model"] == "transfer"
    import keras

    rebuilt = keras.models.model_from_json((best / "architecture.json").read_text())
    rebuilt.load_weights(best / "model.weights.h5")
    x = np.random.default_rng(0).integers(0, 256, (4, 32, 32, 3), dtype="uint8")
    whole = keras.models.load_model(best / "model.keras", safe_mode=True)
    np.testing.assert_allclose(rebuilt.predict(x, verbose=0), whole.predict(x, verbose=0), atol=1e-6)
