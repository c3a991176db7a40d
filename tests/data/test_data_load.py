"""Finding and reading digits, npz files in the Keras layout, and folders."""

import json

import cv2
import numpy as np
import pytest

from imgclf_sweep.data import datasets
from imgclf_sweep.data.load import identity, load, locate
from imgclf_sweep.errors import BadInput


def allocate(_, shape):
    return np.empty(shape, np.uint8)


def arrays(size=(32, 32, 3), train=20, test=10):
    rng = np.random.default_rng(0)
    return {
        "x_train": rng.integers(0, 256, (train, *size), np.uint8),
        "y_train": np.arange(train).reshape(-1, 1) % 10,
        "x_test": rng.integers(0, 256, (test, *size), np.uint8),
        "y_test": (np.arange(test) % 10).astype(np.uint8),
    }


def read(dataset, directory):
    source = locate(dataset, directory, directory / "downloads", print)
    return load(dataset, source, allocate)


def test_digits_are_stretched_to_the_whole_range():
    from sklearn.datasets import load_digits

    loaded = load(datasets.digits(), locate(datasets.digits(), None, None, print), allocate)
    assert loaded.train_x.shape == (1797, 8, 8, 1)
    assert loaded.train_x.dtype == np.uint8
    published = load_digits().images
    np.testing.assert_allclose(loaded.train_x[..., 0], published * 255 / 16, atol=0.5)
    assert (loaded.train_x.min(), loaded.train_x.max()) == (0, 255)
    assert loaded.train_y.tolist() == load_digits().target.tolist()
    assert loaded.classes == tuple("0123456789")
    assert loaded.test_x is None


def test_digits_are_the_same_wherever_scikit_learn_keeps_them(monkeypatch):
    here = locate(datasets.digits(), None, None, print)
    direct = load(datasets.digits(), here, allocate)
    monkeypatch.setattr("imgclf_sweep.data.load.DIGITS_FILE", ("datasets", "moved.csv.gz"))
    asked_for = load(datasets.digits(), here, allocate)
    np.testing.assert_array_equal(direct.train_x, asked_for.train_x)
    np.testing.assert_array_equal(direct.train_y, asked_for.train_y)


def test_an_npz_in_the_keras_layout(tmp_path):
    given = arrays()
    np.savez(tmp_path / "cifar10.npz", **given)
    loaded = read(datasets.cifar10(), tmp_path)
    np.testing.assert_array_equal(loaded.train_x, given["x_train"])
    np.testing.assert_array_equal(loaded.test_x, given["x_test"])
    assert loaded.train_y.dtype == loaded.test_y.dtype == np.int64
    assert loaded.train_y.tolist() == given["y_train"].ravel().tolist()
    assert loaded.classes[:3] == ("airplane", "automobile", "bird")


def test_rgb_arrays_become_gray_by_the_weights_of_red_green_blue(tmp_path):
    given = arrays()
    np.savez(tmp_path / "cifar10.npz", **given)
    gray = read(datasets.cifar10(color="gray"), tmp_path).train_x
    assert gray.shape == (20, 32, 32, 1)
    expected = given["x_train"] @ np.array([0.299, 0.587, 0.114])
    np.testing.assert_allclose(gray[..., 0], expected, atol=1)


def test_gray_arrays_with_and_without_a_channel_axis(tmp_path):
    given = arrays((28, 28))
    np.savez(tmp_path / "mnist.npz", **given)
    flat = read(datasets.mnist(), tmp_path)
    assert flat.train_x.shape == (20, 28, 28, 1)
    np.savez(tmp_path / "mnist.npz", **{k: v[..., None] if k[0] == "x" else v for k, v in given.items()})
    np.testing.assert_array_equal(read(datasets.mnist(), tmp_path).train_x, flat.train_x)
    rgb = read(datasets.mnist(color="rgb"), tmp_path).train_x
    np.testing.assert_array_equal(rgb, flat.train_x.repeat(3, 3))


def test_the_folder_given_comes_before_the_one_in_the_environment(tmp_path, monkeypatch):
    for name in ("given", "named"):
        (tmp_path / name).mkdir()
        np.savez(tmp_path / name / "mnist.npz", **arrays((28, 28)))
    monkeypatch.setenv("IMGCLF_SWEEP_DATA", str(tmp_path / "named"))
    data = datasets.mnist()
    assert locate(data, tmp_path / "given", tmp_path, print).file == tmp_path / "given" / "mnist.npz"
    assert locate(data, None, tmp_path, print).file == tmp_path / "named" / "mnist.npz"
    (tmp_path / "given" / "mnist.npz").unlink()
    assert locate(data, tmp_path / "given", tmp_path, print).file == tmp_path / "named" / "mnist.npz"
    with pytest.raises(BadInput, match="nowhere' does not exist"):
        locate(data, tmp_path / "nowhere", tmp_path, print)


@pytest.mark.parametrize(
    ("name", "array", "reason"),
    [
        ("x_train", None, "has no array x_train"),
        (
            "x_train",
            np.zeros((20, 32, 32, 3), np.float32),
            r"x_train: float32.*must be uint8 of shape \(N, 32, 32, 3\)",
        ),
        ("x_test", np.zeros((10, 32, 32), np.uint8), r"x_test: uint8 of shape \(10, 32, 32\)"),
        ("x_test", np.zeros((9, 32, 32, 3), np.uint8), "x_test: 9 images for 10 labels"),
        ("y_train", np.zeros((20, 10), np.int64), "y_train.*must be whole numbers"),
        ("y_train", np.zeros(20), "y_train: float64"),
        ("y_train", np.arange(20), "labels from 0 to 19; must be 0 to 9"),
        ("y_test", np.arange(10) - 1, "y_test: labels from -1 to 8"),
        ("y_train", np.arange(20) % 9, "y_train: no image of class 'truck'"),
        ("y_test", np.zeros(0, int), "y_test: empty"),
        ("y_test", np.array([{}] * 10), "y_test: Object arrays cannot be loaded"),
    ],
)
def test_an_npz_that_is_not_as_it_must_be(tmp_path, name, array, reason):
    given = arrays() | {name: array}
    np.savez(tmp_path / "cifar10.npz", **{k: v for k, v in given.items() if v is not None})
    with pytest.raises(BadInput, match=r"cifar10\.npz.*" + reason):
        read(datasets.cifar10(), tmp_path)


def test_a_damaged_npz(tmp_path):
    file = tmp_path / "cifar10.npz"
    np.savez_compressed(file, **arrays())
    whole = file.read_bytes()
    flipped = bytearray(whole)
    flipped[len(whole) // 3] ^= 0x55
    single = tmp_path / "single.npy"
    np.save(single, np.zeros(3))
    for content in (b"", b"text", whole[: len(whole) // 2], bytes(flipped), single.read_bytes()):
        file.write_bytes(content)
        with pytest.raises(BadInput, match="cifar10.npz"):
            read(datasets.cifar10(), tmp_path)


def test_a_folder_is_read_with_the_declared_size_and_colour(pictures):
    pictures({"cat": 3, "dog": 2}, under="train")
    root = pictures({"cat": 1, "dog": 1}, under="test")
    data = datasets.image_folder(root, size=(6, 5), color="gray")
    loaded = load(data, locate(data, None, root, print), allocate)
    assert loaded.train_x.shape == (5, 6, 5, 1)
    assert loaded.test_x.shape == (2, 6, 5, 1)
    assert (loaded.train_y.tolist(), loaded.test_y.tolist()) == ([0, 0, 0, 1, 1], [0, 1])
    rgb = cv2.cvtColor(cv2.imread(str(root / "train" / "dog" / "001.png")), cv2.COLOR_BGR2GRAY)
    np.testing.assert_array_equal(loaded.train_x[4, ..., 0], cv2.resize(rgb, (5, 6), interpolation=cv2.INTER_AREA))


def test_the_identity_of_a_source_is_json_and_follows_its_files(pictures):
    data = datasets.image_folder(pictures({"cat": 3, "dog": 2}), size=(6, 5))
    source = locate(data, None, None, print)
    assert json.loads(json.dumps(source.identity)) == source.identity == identity(source)
    file = source.listing.root / "cat" / "000.png"
    file.write_bytes(file.read_bytes())
    assert identity(source) != source.identity
