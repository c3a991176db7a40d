"""Weights on disk: whole or not there, and without the optimizer."""

import numpy as np
import pytest

from imgclf_sweep.models.cnn import build_cnn
from imgclf_sweep.training.weights import (
    BEST,
    BEST_ARRAYS,
    best_weights,
    load_arrays,
    load_weights,
    save_arrays,
    save_weights,
    weights_of,
)

SMALL = {"filters": 4, "dense_units": 8, "batch_norm": True}


def model(**knobs):
    return build_cnn({**SMALL, **knobs}, (8, 8, 1), 10, "sparse_categorical_crossentropy")


@pytest.fixture
def trained():
    rng = np.random.default_rng(0)
    net = model()
    net.fit(rng.random((32, 8, 8, 1), dtype="float32"), rng.integers(0, 10, 32), verbose=0)
    return net


def test_weights_come_back_and_the_optimizer_stays_its_own(trained, tmp_path):
    path = tmp_path / "new" / "best.weights.h5"
    save_weights(trained, path)
    other = model()
    load_weights(other, path)
    assert [p.name for p in path.parent.iterdir()] == ["best.weights.h5"]
    for a, b in zip(trained.get_weights(), other.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    assert int(trained.optimizer.iterations) == 1 and int(other.optimizer.iterations) == 0
    floats = sum(w.size for w in trained.get_weights())
    assert path.stat().st_size < 4 * floats + 40_000  # Adam's two moments would add 8 bytes a weight


def test_a_failed_save_leaves_the_old_file(trained, tmp_path, monkeypatch):
    path = tmp_path / "best.weights.h5"
    path.write_bytes(b"old")

    def full(target):
        target.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(trained, "save_weights", full)
    with pytest.raises(OSError, match="No space"):
        save_weights(trained, path)
    assert path.read_bytes() == b"old" and len(list(tmp_path.iterdir())) == 1
    assert trained.optimizer is not None


@pytest.mark.filterwarnings("ignore:Skipping nested container")  # Keras warns on its way to the error
def test_weights_of_another_model_and_torn_files_are_refused(trained, tmp_path):
    path = tmp_path / "best.weights.h5"
    save_weights(trained, path)
    with pytest.raises(ValueError):
        load_weights(model(filters=6), path)
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(OSError):
        load_weights(model(), path)


def test_plain_arrays_make_the_same_keras_model_and_one_file_takes_the_other_s_place(tmp_path):
    trained, other = model(), model()
    save_weights(trained, tmp_path / BEST)
    save_arrays(trained.get_weights(), tmp_path / BEST_ARRAYS)
    assert best_weights(tmp_path) == [tmp_path / BEST_ARRAYS] and weights_of(tmp_path) == tmp_path / BEST_ARRAYS
    load_weights(other, tmp_path / BEST_ARRAYS)
    for one, two in zip(trained.get_weights(), other.get_weights(), strict=True):
        np.testing.assert_array_equal(one, two)
    with pytest.raises(ValueError):
        load_weights(model(filters=6), tmp_path / BEST_ARRAYS)
    save_weights(trained, tmp_path / BEST)
    assert best_weights(tmp_path) == [tmp_path / BEST]
    assert weights_of(tmp_path / "gone") == tmp_path / "gone" / BEST


@pytest.mark.parametrize("part", [0.0, 0.5, 0.99])
def test_torn_arrays_are_told_from_whole_ones(tmp_path, part):
    save_arrays([np.ones((30, 40), np.float32)], tmp_path / BEST_ARRAYS)
    whole = (tmp_path / BEST_ARRAYS).read_bytes()
    (tmp_path / BEST_ARRAYS).write_bytes(whole[: int(part * len(whole))])
    with pytest.raises(OSError, match="torn or holds no weights"):
        load_arrays(tmp_path / BEST_ARRAYS)
    with pytest.raises(FileNotFoundError, match="are gone"):
        load_arrays(tmp_path / "gone.npz")


def test_arrays_with_code_in_them_are_not_read(tmp_path):
    np.savez(tmp_path / BEST_ARRAYS, np.array([print], dtype=object))
    with pytest.raises(OSError, match="holds no weights"):
        load_arrays(tmp_path / BEST_ARRAYS)
