"""Writing a decoded data set's arrays: decode, find duplicates, split the test part off, take the fingerprint."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import BadInput
from ..text import printable
from .datasets import Dataset
from .files import sync
from .load import Loaded, Source, load
from .split import hold_out

BLOCK = 4096  # images copied at a time


def write(
    directory: Path, dataset: Dataset, source: Source, test: float, seed: int, check: Callable[[], None]
) -> dict[str, Any]:
    """Decode `source` into arrays in `directory`. Returns what meta.json says of them. `check` is called once all is read.

    Raises: BadInput; OSError.
    """
    everything = "train_x" if source.official_test else "all_x"
    names = {"train_x": everything, "test_x": "test_x"}
    loaded = load(dataset, source, lambda name, shape: _array(directory / f"{names[name]}.npy", shape))
    check()
    digests = _digests(loaded.train_x)
    _check_classes(loaded, _groups(digests), at_least=2 if source.official_test else 3)
    if loaded.test_x is not None and loaded.test_y is not None:
        train, test_part = (digests, loaded.train_y), (_digests(loaded.test_x), loaded.test_y)
    else:
        kept, held = hold_out(loaded.train_y, _groups(digests), test, seed, keep=2, classes=loaded.classes)
        _copy(loaded.train_x, kept, directory / "train_x.npy")
        _copy(loaded.train_x, held, directory / "test_x.npy")
        (directory / "all_x.npy").unlink()
        train, test_part = ((digests[part], loaded.train_y[part]) for part in (kept, held))
    np.save(directory / "train_y.npy", train[1])
    np.save(directory / "groups.npy", _groups(train[0]))
    np.save(directory / "test_y.npy", test_part[1])
    files = sorted(directory.iterdir())
    for file in files:
        sync(file)
    return {
        "shape": list(dataset.shape),
        "classes": list(loaded.classes),
        "counts": {"train": len(train[1]), "test": len(test_part[1])},
        "skipped": [bad._asdict() for bad in loaded.skipped],
        "shared": int(np.isin(test_part[0], train[0]).sum()),
        "fingerprint": _fingerprint(dataset.shape, loaded.classes, [train, test_part]),
        "files": {file.name: file.stat().st_size for file in files},
    }


def _array(path: Path, shape: tuple[int, ...]) -> np.ndarray:
    """A new uint8 array on disk. Its room is taken at once: a full disk is an error here, not a SIGBUS while writing."""
    array = np.lib.format.open_memmap(path, "w+", np.uint8, shape)
    if hasattr(os, "posix_fallocate"):
        with open(path, "r+b") as file:
            os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
    return array


def _copy(x: np.ndarray, indices: np.ndarray, path: Path) -> None:
    out = _array(path, (len(indices), *x.shape[1:]))
    for start in range(0, len(indices), BLOCK):
        out[start : start + BLOCK] = x[indices[start : start + BLOCK]]


def _digests(x: np.ndarray) -> np.ndarray:
    """A 16-byte digest of each image, (N,) of dtype S16."""
    return np.array([hashlib.blake2b(image, digest_size=16).digest() for image in x], "S16")


def _groups(digests: np.ndarray) -> np.ndarray:
    """For each image the index of the first one equal to it: int64 (N,)."""
    _, first, inverse = np.unique(digests, return_index=True, return_inverse=True)
    return first[inverse].astype(np.int64)


def _check_classes(loaded: Loaded, groups: np.ndarray, at_least: int) -> None:
    """Raises: BadInput naming a class without one distinct image for each part: training, validation and, if split off, test."""
    for label, name in enumerate(loaded.classes):
        distinct = len(np.unique(groups[loaded.train_y == label]))
        if distinct < at_least:
            parts = "training, validation and test parts" if at_least == 3 else "training and validation parts"
            raise BadInput(
                f"class '{printable(name)}' has too few distinct images ({distinct}); the {parts} need {at_least} at least"
            )


def _fingerprint(shape: Sequence[int], classes: Sequence[str], parts: Sequence[tuple[np.ndarray, np.ndarray]]) -> str:
    """A digest of every pixel and label, part by part in order; where the files came from does not enter."""
    digest = hashlib.sha256(json.dumps([list(shape), list(classes)]).encode())
    for digests, labels in parts:
        digest.update(len(labels).to_bytes(8, "little") + digests.tobytes() + labels.astype("<i8").tobytes())
    return digest.hexdigest()
