"""Downloading through keras.datasets, with Keras's own download folder standing in for the network, and without any."""

import gzip
import os
import struct

import numpy as np
import pytest

from imgclf_sweep.data import datasets
from imgclf_sweep.data.load import load, locate
from imgclf_sweep.errors import BadInput


@pytest.fixture
def no_network(tmp_path, monkeypatch):
    """Keras keeps its files here, and every connection is refused."""
    monkeypatch.delenv("IMGCLF_SWEEP_DATA", raising=False)
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "keras"))
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


def test_what_keras_has_is_kept_as_an_npz(no_network):
    folder = no_network / "keras" / "datasets" / "fashion-mnist"
    folder.mkdir(parents=True)
    pixels = np.random.default_rng(0).integers(0, 256, (30, 28, 28), np.uint8)
    labels = (np.arange(30) % 10).astype(np.uint8)
    for part, count in (("train", 30), ("t10k", 20)):
        head = struct.pack(">IIII", 2051, count, 28, 28)
        (folder / f"{part}-images-idx3-ubyte.gz").write_bytes(gzip.compress(head + pixels[:count].tobytes()))
        head = struct.pack(">II", 2049, count)
        (folder / f"{part}-labels-idx1-ubyte.gz").write_bytes(gzip.compress(head + labels[:count].tobytes()))
    data, notes = datasets.fashion_mnist(), []
    downloads = no_network / "cache" / "downloads"
    source = locate(data, None, downloads, notes.append)
    assert source.file == downloads / "fashion_mnist.npz"
    assert os.listdir(downloads) == ["fashion_mnist.npz"]
    assert len(notes) == 1
    loaded = load(data, source, lambda _, shape: np.empty(shape, np.uint8))
    np.testing.assert_array_equal(loaded.train_x[..., 0], pixels)
    assert loaded.test_y.tolist() == labels[:20].tolist()
    assert locate(data, None, downloads, notes.append) == source
    assert len(notes) == 1, "the second time nothing is fetched"


def test_without_network_the_line_says_which_file_to_supply(no_network):
    with pytest.raises(
        BadInput, match="could not be downloaded .*cifar10.npz in the Keras layout.*--data-dir"
    ) as caught:
        locate(datasets.cifar10(), None, no_network / "root" / "cache" / "downloads", lambda line: None)
    assert str(caught.value).isprintable()
    assert not (no_network / "root").exists()
